//! The proof through Braintrust, after the credentials were written: whether each destination can use them.
//!
//! It claims only what the request established. A model that doesn't answer, a data plane without an AI proxy, or an
//! answer that doesn't name the `ai_secret` leaves the credentials unproven, which is a warning. The credentials have
//! been proven against Bedrock itself, so only a refusal is an error.

use futures_util::future::join_all;

use super::destinations::{Reading, Writable};
use super::target_run::TargetRun;
use crate::braintrust::ai_provider::{AiProvider, Place};
use crate::braintrust::arrival;
use crate::braintrust::client::Braintrust;
use crate::braintrust::end_to_end::{COMPLETION, Pin, Refusal, RefusalKind, Verdict};
use crate::config::{Destination, Lookup, ModelId};
use crate::credentials::Credentials;
use crate::error::{Error, ErrorClass, Service};
use crate::report::{DestinationReport, EndToEnd};

/// What the operator should know about the proofs.
pub fn warnings(reports: &[DestinationReport]) -> Vec<String> {
    let warning = |report: &DestinationReport| match &report.end_to_end {
        Some(EndToEnd::Unproven { reason }) => Some(format!(
            "it was not proven that Braintrust can use the credentials in the ai_secret {}: {reason}",
            report.ai_secret
        )),
        Some(EndToEnd::Proven | EndToEnd::Refused) | None => None,
    };
    reports.iter().filter_map(warning).collect()
}

/// Whether a policy denied the model when Braintrust called it.
pub fn is_denial(error: &Error) -> bool {
    error.class == ErrorClass::Permission && error.call == COMPLETION
}

impl<'a> TargetRun<'a> {
    /// Proves the credentials through each destination that shows them, side by side, if the target asks for that. Adds
    /// the results to the reports.
    pub async fn prove_end_to_end(
        &self,
        readings: &[Reading<'a>],
        reports: Vec<DestinationReport>,
        credentials: &Credentials,
    ) -> Vec<DestinationReport> {
        let Some(asked) = &self.target.end_to_end else { return reports };
        let prove = async |(reading, report): (&Reading<'a>, DestinationReport)| match reading.writable() {
            Some(found) if report.updated => {
                let verdict = self.prove_through(reading.destination, found, &asked.model, credentials).await;
                with_verdict(report, verdict, &asked.model, credentials)
            }
            Some(_) | None => report,
        };
        join_all(readings.iter().zip(reports).map(prove)).await
    }

    async fn prove_through(
        &self,
        destination: &Destination,
        found: &Writable,
        model: &ModelId,
        credentials: &Credentials,
    ) -> Verdict {
        let provider = &found.provider;
        let pin = match self.pin(destination, provider).await {
            Ok(pin) => pin,
            Err(reason) => return Verdict::Unproven(reason),
        };
        let prove = async |api: Braintrust<'_>| {
            let verdict = api.prove_end_to_end(&pin, model).await;
            if !matches!(verdict, Verdict::Refused(_)) {
                return Ok(verdict);
            }
            // Another run may have written other credentials before the request.
            let now = api.get(provider.place, provider.id).await?;
            let are_still_there = arrival::arrived(found.layout, credentials, None, &now).is_ok();
            let reason = "somebody else changed the ai_secret meanwhile";
            Ok(if are_still_there { verdict } else { Verdict::Unproven(reason.to_owned()) })
        };
        let verdict = self.services.braintrust(&destination.data_plane, self.deadline, prove).await;
        verdict.unwrap_or_else(|error| Verdict::Unproven(reason(&error)))
    }

    /// What names the provider in a request. The error says why no request about it would show anything.
    pub async fn pin(&self, destination: &Destination, provider: &AiProvider) -> Result<Pin, String> {
        if provider.metadata.custom_api_base.is_some() {
            return Err("its api_base is not Bedrock's, so another host would answer".to_owned());
        }
        if provider.place == Place::Project {
            return Err("a project's own provider can't be named in a request".to_owned());
        }
        let org_name = match (&destination.lookup, provider.owner) {
            (Lookup::Name { org_name, .. }, _) => org_name.clone(),
            (Lookup::Id(_), Some(id)) => {
                let name = async |api: Braintrust<'_>| api.organization_to_name(id).await;
                let named = self.services.braintrust(&destination.data_plane, self.deadline, name).await;
                named.map_err(|error| reason(&error))?
            }
            (Lookup::Id(_), None) | (Lookup::InProject { .. }, _) => None,
        };
        Pin::new(&provider.name, org_name.as_deref())
    }
}

fn reason(error: &Error) -> String {
    format!("{}: {}", error.call, error.problem)
}

fn with_verdict(
    report: DestinationReport,
    verdict: Verdict,
    model: &ModelId,
    credentials: &Credentials,
) -> DestinationReport {
    let (end_to_end, error) = match verdict {
        Verdict::Proven => (EndToEnd::Proven, None),
        Verdict::Unproven(reason) => (EndToEnd::Unproven { reason }, None),
        Verdict::Refused(refusal) => (EndToEnd::Refused, Some(refused(&refusal, model, credentials))),
    };
    DestinationReport { end_to_end: Some(end_to_end), error, ..report }
}

fn refused(Refusal { kind, answer, .. }: &Refusal, model: &ModelId, credentials: &Credentials) -> Error {
    let id = &credentials.id;
    let (class, problem, remedy) = match kind {
        RefusalKind::NotRecognized => (
            ErrorClass::VerificationFailed,
            format!("Bedrock accepts {id}, but refused it when Braintrust called {model} with it ({answer})"),
            "Check what Braintrust sends to Bedrock: that the data plane is not too old for these credentials, that \
             its environment doesn't set AWS_BEARER_TOKEN_BEDROCK, and that nothing else writes to this ai_secret"
                .to_owned(),
        ),
        RefusalKind::Denied => (
            ErrorClass::Permission,
            format!("a policy denied {id} the model {model} when Braintrust called it ({answer})"),
            format!(
                "Allow bedrock:InvokeModel on {model} from Braintrust's network (the parameters ModelArns and \
                 SourceAddresses), and bedrock:CallWithBearerToken for an API key, or choose another model (the \
                 parameter EndToEndModelId, or the target's end_to_end)"
            ),
        ),
    };
    Error::new(class, Service::Braintrust, COMPLETION, problem, remedy)
}
