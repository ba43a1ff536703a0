# The secret for the Braintrust API key, unless braintrust_api_key_secret_arn names one.

resource "aws_secretsmanager_secret" "api_key" {
  # checkov:skip=CKV2_AWS_57:A user's API key can't be rotated. To rotate a service token, set braintrust_api_key_secret_arn.
  count       = var.braintrust_api_key_version == null ? 0 : 1
  name_prefix = "${var.name}-braintrust-api-key-"
  description = "The Braintrust API key of the stack ${var.name}"
  kms_key_id  = lookup(var.parameters, "KmsKeyArn", null)
  tags        = var.tags
}

resource "aws_secretsmanager_secret_version" "api_key" {
  count     = var.braintrust_api_key_version == null ? 0 : 1
  secret_id = aws_secretsmanager_secret.api_key[0].id
  # Write-only, so that the state doesn't hold the key.
  secret_string_wo         = jsonencode({ api_key = var.braintrust_api_key })
  secret_string_wo_version = var.braintrust_api_key_version
}
