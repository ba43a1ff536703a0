# The bucket for the code, unless code_bucket names one. It is private, versioned, encrypted, and open to TLS only.

resource "aws_s3_bucket" "code" {
  # checkov:skip=CKV_AWS_18:Only CloudFormation and Lambda read it. Set code_bucket if reads must be logged.
  # checkov:skip=CKV_AWS_144:A release's files can be downloaded again.
  # checkov:skip=CKV_AWS_145:It holds a public release and no secret.
  # checkov:skip=CKV2_AWS_61:Every release stays, so that a stack can be rolled back. A release takes 2.4 MB.
  # checkov:skip=CKV2_AWS_62:Nothing acts on new files.
  count         = var.code_bucket == null ? 1 : 0
  bucket_prefix = "bedrock-braintrust-rotator-"
  force_destroy = true # a release's files can be downloaded again
  tags          = var.tags
}

resource "aws_s3_bucket_public_access_block" "code" {
  count                   = var.code_bucket == null ? 1 : 0
  bucket                  = aws_s3_bucket.code[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_versioning" "code" {
  count  = var.code_bucket == null ? 1 : 0
  bucket = aws_s3_bucket.code[0].id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "code" {
  count  = var.code_bucket == null ? 1 : 0
  bucket = aws_s3_bucket.code[0].id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_policy" "code" {
  count  = var.code_bucket == null ? 1 : 0
  bucket = aws_s3_bucket.code[0].id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OnlyByTls"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [aws_s3_bucket.code[0].arn, "${aws_s3_bucket.code[0].arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })

  depends_on = [aws_s3_bucket_public_access_block.code]
}
