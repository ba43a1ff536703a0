variable "bundle" {
  description = "The folder with the files of a release, such as cloudformation.json and the function's zip file."
  type        = string

  validation {
    condition     = fileexists("${var.bundle}/cloudformation.json")
    error_message = "There is no cloudformation.json in ${var.bundle}. Download a release's files into it, or run make release and use its folder dist."
  }
}

variable "architecture" {
  description = "The function's architecture: x86_64 or arm64."
  type        = string
  default     = "x86_64"

  validation {
    condition     = fileexists("${var.bundle}/bedrock-braintrust-rotator-${var.architecture}.zip")
    error_message = "There is no bedrock-braintrust-rotator-${var.architecture}.zip in ${var.bundle}. Download it, or choose x86_64 or arm64 as the architecture."
  }
}

variable "name" {
  description = "The name of the CloudFormation stack."
  type        = string
  default     = "bedrock-braintrust-rotator"

  validation {
    condition     = can(regex("^[a-zA-Z][a-zA-Z0-9-]{0,127}$", var.name))
    error_message = "The name must begin with a letter and have up to 128 letters, digits, or hyphens."
  }
}

variable "braintrust_api_url" {
  description = "The URL of the Braintrust API, such as https://api-eu.braintrust.dev in the EU, or of your data plane. If null, the template's default is used."
  type        = string
  default     = null
}

variable "braintrust_api_key_secret_arn" {
  description = "The complete ARN of a Secrets Manager secret that holds the Braintrust API key of an organization admin. If null, the module creates one from braintrust_api_key."
  type        = string
  default     = null

  validation {
    condition     = (var.braintrust_api_key_secret_arn == null) != (var.braintrust_api_key_version == null)
    error_message = "Specify either braintrust_api_key_secret_arn, or braintrust_api_key and braintrust_api_key_version."
  }
}

variable "braintrust_api_key" {
  description = "The Braintrust API key of an organization admin. The module writes it to a secret, but not to the plan or the state."
  type        = string
  default     = null
  sensitive   = true
  ephemeral   = true
}

variable "braintrust_api_key_version" {
  description = "With braintrust_api_key, any number. Increase it when you change the key, because Terraform doesn't notice that by itself."
  type        = number
  default     = null
}

variable "ai_secret_id" {
  description = "The ID of the AI provider in Braintrust (its ai_secret) whose credentials are rotated."
  type        = string
  default     = null
}

variable "ai_secret_name" {
  description = "The name of the AI provider in Braintrust, instead of ai_secret_id."
  type        = string
  default     = null
}

variable "alarm_email" {
  description = "The address that alarms are emailed to, once its owner confirms it."
  type        = string
  default     = null
}

variable "alarm_topic_arn" {
  description = "The ARN of an existing SNS topic for alarms, instead of alarm_email."
  type        = string
  default     = null
}

variable "parameters" {
  description = "Other parameters of the template, by name, such as { Kind = \"access_key\" }. Join lists with commas."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "code_bucket" {
  description = "The name of an existing S3 bucket, in the stack's region, for the template and the function's zip file. Terraform must know the name when it plans. If null, the module creates one."
  type        = string
  default     = null
}

variable "cloudformation_role_arn" {
  description = "The ARN of a role with which CloudFormation creates the resources. If null, it uses the caller's permissions."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags for the stack, which CloudFormation gives to its resources, and for what the module itself creates."
  type        = map(string)
  default     = {}
  nullable    = false
}
