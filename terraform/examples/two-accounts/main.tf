# The rotator runs in one account, and the models are called in another one, whose role it assumes.

terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.0"
    }
  }
}

provider "aws" {
  region = "us-east-1"
}

provider "aws" {
  alias  = "bedrock"
  region = "us-east-1"

  assume_role {
    role_arn = "arn:aws:iam::${var.bedrock_account}:role/terraform"
  }
}

variable "bedrock_account" {
  description = "The ID of the account in which the models are called."
  type        = string
}

variable "braintrust_api_key_secret_arn" {
  description = "The complete ARN of the secret that holds the Braintrust API key."
  type        = string
}

variable "external_id" {
  description = "A random text that nobody else uses, such as the output of openssl rand -hex 16."
  type        = string
}

locals {
  bundle    = "${path.module}/dist" # the files of a release
  role_name = "braintrust-bedrock"
}

module "rotator" {
  source = "../.."

  bundle                        = local.bundle
  braintrust_api_key_secret_arn = var.braintrust_api_key_secret_arn
  ai_secret_name                = "AWS Bedrock"
  alarm_email                   = "on-call@example.com"

  parameters = {
    BedrockRoleArn = "arn:aws:iam::${var.bedrock_account}:role/${local.role_name}"
    ExternalId     = var.external_id
  }
}

# The role trusts the function's role, so it is created second. Until it exists, rotations fail.
resource "aws_cloudformation_stack" "bedrock_role" {
  # checkov:skip=CKV_AWS_124:Terraform waits for the stack and reports its errors.
  provider      = aws.bedrock
  name          = local.role_name
  template_body = file("${local.bundle}/bedrock-role.yaml")
  capabilities  = ["CAPABILITY_NAMED_IAM"]

  parameters = {
    ExecutionRoleArn = module.rotator.execution_role_arn
    ExternalId       = var.external_id
    RoleName         = local.role_name
  }
}
