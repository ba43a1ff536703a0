# Rotates access keys in eu-central-1 for an AI provider in Braintrust's EU data plane. Tests the credentials with a
# model, and sends alarms by email.

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
  region = "eu-central-1"
}

variable "braintrust_api_key" {
  description = "The Braintrust API key of an organization admin. Set it with TF_VAR_braintrust_api_key."
  type        = string
  sensitive   = true
  ephemeral   = true
}

module "rotator" {
  source = "../.."

  bundle                     = "${path.module}/dist" # the files of a release
  architecture               = "arm64"
  braintrust_api_url         = "https://api-eu.braintrust.dev"
  braintrust_api_key         = var.braintrust_api_key
  braintrust_api_key_version = 1
  ai_secret_id               = "5f1c9a52-8f0e-4a53-9d3b-2f6f1a7c4e10"
  alarm_email                = "on-call@example.com"

  parameters = {
    Kind         = "access_key"
    RotateAfter  = "7d"
    ProbeModelId = "eu.amazon.nova-micro-v1:0"
  }

  tags = {
    CostCenter = "1234"
  }
}

output "invoke_command" {
  description = "Rotates credentials that are due."
  value       = module.rotator.outputs["InvokeCommand"]
}
