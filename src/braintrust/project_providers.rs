//! Finds a project's own provider, which the API calls an `env_var`.
//!
//! <https://www.braintrust.dev/docs/reference/api/EnvVars>, <https://www.braintrust.dev/docs/reference/api/Projects>

use std::collections::BTreeSet;

use futures_util::future::join;
use serde::Deserialize;
use uuid::Uuid;

use super::ai_provider::{AiProvider, MAX_CANDIDATES, PROJECT, Place, candidates};
use super::client::Braintrust;
use crate::config::{Lookup, ProjectLookup, ProviderLookup};
use crate::error::{Error, ErrorClass, Service, shortened};

const LIST: &str = Place::Project.list();
pub(super) const LIST_PROJECTS: &str = "GET /v1/project";
/// The list of `env_var`s has no cursor, so what doesn't fit into one answer can't be read. An `env_var` has less than
/// a kilobyte, unless it names many models.
const MAX_LISTED: usize = 200;
const NAME_THE_ORGANIZATION: &str = "Name the organization, too (the parameter BraintrustOrgName, or org_name in the \
                                     target's ai_secrets), or give the project's ID instead of its name (the parameter \
                                     BraintrustProject, or project)";
const GIVE_THE_ID: &str = "Correct the names, or give the project's ID instead of its name (the parameter \
                           BraintrustProject, or project in the target's ai_secrets)";

#[derive(Deserialize)]
pub struct Project {
    pub id: Uuid,
    pub org_id: Option<Uuid>,
    pub name: String,
    pub(super) deleted_at: Option<String>,
}

/// The providers of a project that an answer lists.
pub struct Listed {
    pub providers: Vec<AiProvider>,
    /// Whether there may be more than the answer has room for.
    pub is_cut_off: bool,
}

fn failed<T>(class: ErrorClass, call: &'static str, problem: String, remedy: &str) -> Result<T, Error> {
    Err(Error::new(class, Service::Braintrust, call, problem, remedy))
}

impl Braintrust<'_> {
    /// Finds the one provider that `lookup` names, in its project.
    pub(super) async fn find_in_project(
        &self,
        lookup: &Lookup,
        project: &ProjectLookup,
        provider: &ProviderLookup,
    ) -> Result<AiProvider, Error> {
        let name = match provider {
            ProviderLookup::Name(name) => name,
            ProviderLookup::Id(id) => {
                let (project, found) = join(self.find_project(project), self.get(Place::Project, *id)).await;
                return in_project(project?, found?);
            }
        };
        let id = self.find_project(project).await?;
        let Listed { providers, .. } = self.list_in_project(id, Some(name)).await?;
        // An older data plane may ignore the filter.
        let named = providers.into_iter().filter(|provider| provider.name == *name);
        let (mut found, mut others): (Vec<_>, Vec<_>) = named.partition(AiProvider::is_bedrock);
        if found.len() > 1 {
            let problem = format!("several providers are named {lookup}: {}", listed(&found));
            let remedy = "Name the provider by its ID (the parameter AiSecretId, or id in the target's ai_secrets)";
            return failed(ErrorClass::Conflict, LIST, problem, remedy);
        }
        // One of another type is returned, because `layout::choose` refuses it with a better error.
        match found.pop().or_else(|| others.pop()) {
            Some(found) => Ok(found),
            None => self.not_in_project(lookup, project, id).await,
        }
    }

    /// The error for a project that has no provider of the name.
    async fn not_in_project(&self, lookup: &Lookup, project: &ProjectLookup, id: Uuid) -> Result<AiProvider, Error> {
        if let ProjectLookup::Id(_) = project
            && self.project_name(id).await?.is_none()
        {
            let problem = format!("the API key sees no project with the ID {id}");
            return self.no_project(problem, None).await;
        }
        let Listed { providers, is_cut_off } = self.list_in_project(id, None).await?;
        let bedrock: Vec<_> = providers.into_iter().filter(AiProvider::is_bedrock).collect();
        let first = if is_cut_off { format!(" among its first {MAX_LISTED}") } else { String::new() };
        let problem = format!("no provider is named {lookup}. Those of type bedrock{first}: {}", listed(&bedrock));
        let remedy = "Name one of them (the parameter AiSecretName, or the target's ai_secrets), or add the provider \
                      to the project in Braintrust first";
        failed(ErrorClass::NotFound, LIST, problem, remedy)
    }

    /// The project's ID.
    async fn find_project(&self, lookup: &ProjectLookup) -> Result<Uuid, Error> {
        let (name, org_name) = match lookup {
            ProjectLookup::Id(id) => return Ok(*id),
            ProjectLookup::Name { name, org_name } => (name, org_name.as_deref()),
        };
        // An older data plane may ignore the filter. A project that was deleted leaves its name to another one.
        let is_named = |project: &Project| project.name == *name && project.deleted_at.is_none();
        let named = match org_name {
            // An organization has one project of a name, so a page that has it is enough.
            Some(org) => self.list_projects(&[("project_name", name), ("org_name", org)], &is_named, 1).await?,
            None => self.projects_in_the_only_organization(lookup, is_named).await?,
        };
        if named.len() > 1 {
            let problem = format!("several projects are named {lookup}: {}", listed_projects(&named));
            return failed(ErrorClass::Conflict, LIST_PROJECTS, problem, NAME_THE_ORGANIZATION);
        }
        let Some(project) = named.first() else {
            return self.no_project(format!("the API key sees no project named {lookup}"), org_name).await;
        };
        if let (Some(org), Some(org_name)) = (project.org_id, org_name)
            && self.is_another_organization(org, org_name).await?
        {
            let problem = format!("{lookup} is not in that organization: {}", listed_projects(&named));
            return failed(ErrorClass::Conflict, LIST_PROJECTS, problem, GIVE_THE_ID);
        }
        Ok(project.id)
    }

    /// The name of a project, unless the API key doesn't see it.
    pub async fn project_name(&self, id: Uuid) -> Result<Option<String>, Error> {
        let seen = self.list_projects(&[("ids", &id.to_string())], &|project| project.id == id, 1).await?;
        Ok(seen.into_iter().next().map(|project| project.name))
    }

    /// As for an `ai_secret`: if the right project were renamed, the only one with that name could be another
    /// organization's.
    async fn projects_in_the_only_organization(
        &self,
        lookup: &ProjectLookup,
        is_named: impl Fn(&Project) -> bool,
    ) -> Result<Vec<Project>, Error> {
        let all = self.list_projects(&[], &|_| true, usize::MAX).await?;
        let organizations: BTreeSet<_> = all.iter().filter_map(|project| project.org_id).collect();
        let (named, others): (Vec<_>, Vec<_>) = all.into_iter().partition(is_named);
        if organizations.len() <= 1 {
            return Ok(named);
        }
        let problem = format!(
            "the API key sees projects of {} organizations, and {lookup} could be of any of them: {}",
            organizations.len(),
            listed_projects(if named.is_empty() { &others } else { &named })
        );
        failed(ErrorClass::Conflict, LIST_PROJECTS, problem, NAME_THE_ORGANIZATION)
    }

    async fn no_project<T>(&self, problem: String, org_name: Option<&str>) -> Result<T, Error> {
        let filter = org_name.map(|org| ("org_name", org));
        let is_there = |project: &Project| project.deleted_at.is_none();
        let seen = self.list_projects(filter.as_slice(), &is_there, MAX_CANDIDATES + 1).await?;
        let problem = format!("{problem}. It sees: {}", listed_projects(&seen));
        let remedy = "Name one of them (the parameter BraintrustProject, or project in the target's ai_secrets). If \
                      the project is missing here, give the API key's user or service account access to it";
        failed(ErrorClass::NotFound, LIST_PROJECTS, problem, remedy)
    }

    async fn list_projects(
        &self,
        filters: &[(&str, &str)],
        is_wanted: &dyn Fn(&Project) -> bool,
        enough: usize,
    ) -> Result<Vec<Project>, Error> {
        let mut request = self.request(LIST_PROJECTS, None);
        request.url.query_pairs_mut().extend_pairs(filters);
        self.pages(&request, |project: &Project| project.id, is_wanted, enough).await
    }

    pub(super) async fn list_in_project(&self, project: Uuid, name: Option<&str>) -> Result<Listed, Error> {
        let mut request = self.request(LIST, None);
        let (project_id, limit) = (project.to_string(), MAX_LISTED.to_string());
        let filters = [("object_type", PROJECT), ("object_id", &project_id), ("limit", &limit)];
        let name = name.map(|name| ("env_var_name", name));
        request.url.query_pairs_mut().extend_pairs(filters).extend_pairs(name);
        let found = self.list_once(&request).await?;
        let is_cut_off = found.len() >= MAX_LISTED;
        let providers = found.into_iter().map(|record| AiProvider::of(Place::Project, record));
        // An older data plane may ignore these filters, too.
        Ok(Listed { providers: providers.filter(|provider| provider.owner == Some(project)).collect(), is_cut_off })
    }
}

/// An ID names a provider of any project, so the project that is named with it is compared.
fn in_project(project: Uuid, found: AiProvider) -> Result<AiProvider, Error> {
    if found.owner == Some(project) {
        return Ok(found);
    }
    let problem = format!("the {found} is not one of the project {project}; it was not touched");
    let remedy = "Name a provider of that project (the parameter AiSecretId, or id in the target's ai_secrets), or the \
                  provider's own project (the parameter BraintrustProject, or project)";
    failed(ErrorClass::Conflict, Place::Project.get(), problem, remedy)
}

fn listed(found: &[AiProvider]) -> String {
    candidates(found, |provider| format!("{} ({:?})", provider.id, shortened(&provider.name)))
}

fn listed_projects(found: &[Project]) -> String {
    candidates(found, |project| {
        let org = project.org_id.map(|org| format!(" of organization {org}")).unwrap_or_default();
        format!("{} ({:?}{org})", project.id, shortened(&project.name))
    })
}

#[cfg(test)]
mod tests;
