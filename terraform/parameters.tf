# The template's parameters, checked against what the template in the bundle declares. CloudFormation would report the
# same mistakes, but only after `terraform plan`.

locals {
  declared = jsondecode(file("${var.bundle}/cloudformation.json")).Parameters

  of_variables = {
    braintrust_api_url            = ["BraintrustApiUrl", var.braintrust_api_url]
    braintrust_api_key_secret_arn = ["BraintrustApiKeySecretArn", var.braintrust_api_key_secret_arn]
    ai_secret_id                  = ["AiSecretId", var.ai_secret_id]
    ai_secret_name                = ["AiSecretName", var.ai_secret_name]
    alarm_email                   = ["AlarmEmail", var.alarm_email]
    alarm_topic_arn               = ["AlarmTopicArn", var.alarm_topic_arn]
    architecture                  = ["Architecture", var.architecture]
  }
  variable_of = merge(
    { for variable, parameter in local.of_variables : parameter[0] => variable },
    { BraintrustApiKey = "braintrust_api_key", CodeBucket = "code_bucket", CodeKey = "bundle" },
  )
  parameters = merge(
    var.parameters,
    { for parameter in values(local.of_variables) : parameter[0] => parameter[1] if parameter[1] != null },
  )

  unknown = [
    for name in keys(var.parameters) : join("", concat(
      ["${name} is not a parameter of the template."],
      [for known in keys(local.declared) : " Did you mean ${known}?" if lower(known) == lower(replace(name, "_", ""))],
    )) if !contains(keys(local.declared), name)
  ]
  has_variable = [
    for name in keys(var.parameters) : "Set the variable ${local.variable_of[name]} instead of the parameter ${name}."
    if contains(keys(local.variable_of), name)
  ]

  known = { for name, value in local.parameters : name => value if contains(keys(local.declared), name) }
  # Only CloudFormation checks patterns that Terraform's regular expressions don't support.
  patterns = {
    for name in keys(local.known) : name => local.declared[name].AllowedPattern
    if can(regexall(local.declared[name].AllowedPattern, ""))
  }
  parts = {
    for name, value in local.known : name => local.declared[name].Type == "CommaDelimitedList" ? split(",", value) : [value]
  }
  no_match = [
    for name, pattern in local.patterns : "${name} ${try(local.declared[name].ConstraintDescription, "must match ${pattern}")}."
    if !alltrue([for part in local.parts[name] : can(regex(pattern, part))])
  ]
  not_allowed = [
    for name, value in local.known : "${name} must be one of ${join(", ", local.declared[name].AllowedValues)}."
    if !contains([for allowed in try(local.declared[name].AllowedValues, [value]) : tostring(allowed)], value)
  ]
  not_a_number = [
    for name, value in local.known : "${name} must be a number."
    if local.declared[name].Type == "Number" && !can(tonumber(value))
  ]
  too_small = [
    for name, value in local.known : "${name} must be at least ${local.declared[name].MinValue}."
    if try(tonumber(value) < local.declared[name].MinValue, false)
  ]
  too_large = [
    for name, value in local.known : "${name} must be at most ${local.declared[name].MaxValue}."
    if try(tonumber(value) > local.declared[name].MaxValue, false)
  ]

  problems = concat(
    local.unknown, local.has_variable, local.no_match, local.not_allowed, local.not_a_number, local.too_small, local.too_large,
  )
}
