locals {
  zip_file = "${var.bundle}/bedrock-braintrust-rotator-${var.architecture}.zip"
  template = "${var.bundle}/cloudformation.json"
  bucket   = var.code_bucket == null ? aws_s3_bucket.code[0] : data.aws_s3_bucket.code[0]

  api_key_secret_arn = var.braintrust_api_key_version == null ? var.braintrust_api_key_secret_arn : aws_secretsmanager_secret.api_key[0].arn
}

data "aws_s3_bucket" "code" {
  count  = var.code_bucket == null ? 0 : 1
  bucket = var.code_bucket
}

# The keys contain hashes, so that CloudFormation notices every change.
resource "aws_s3_object" "code" {
  bucket = local.bucket.id
  key    = "bedrock-braintrust-rotator/${filesha256(local.zip_file)}.zip"
  source = local.zip_file
  tags   = var.tags
}

resource "aws_s3_object" "template" {
  bucket       = local.bucket.id
  key          = "bedrock-braintrust-rotator/${filesha256(local.template)}.json"
  source       = local.template
  content_type = "application/json"
  tags         = var.tags
}

resource "aws_cloudformation_stack" "rotator" {
  # checkov:skip=CKV_AWS_124:Terraform waits for the stack and reports its errors.
  name         = var.name
  template_url = "https://${local.bucket.bucket_regional_domain_name}/${aws_s3_object.template.key}" # too large for template_body
  capabilities = ["CAPABILITY_IAM"]
  iam_role_arn = var.cloudformation_role_arn
  tags         = var.tags

  parameters = merge(local.parameters, {
    BraintrustApiKeySecretArn = local.api_key_secret_arn
    CodeBucket                = local.bucket.id
    CodeKey                   = aws_s3_object.code.key
  })

  lifecycle {
    precondition {
      condition     = length(local.problems) == 0
      error_message = join("\n", local.problems)
    }
  }

  # The first scheduled run reads the key, which must be in the secret by then.
  depends_on = [aws_secretsmanager_secret_version.api_key, aws_s3_bucket_policy.code]
}
