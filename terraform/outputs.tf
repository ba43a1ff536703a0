output "stack_id" {
  description = "The ARN of the CloudFormation stack."
  value       = aws_cloudformation_stack.rotator.id
}

output "function_name" {
  description = "The function's name."
  value       = aws_cloudformation_stack.rotator.outputs["FunctionName"]
}

output "function_arn" {
  description = "The function's ARN."
  value       = aws_cloudformation_stack.rotator.outputs["FunctionArn"]
}

output "execution_role_arn" {
  description = "The role that the function runs as. A Bedrock role of your own must trust it."
  value       = aws_cloudformation_stack.rotator.outputs["ExecutionRoleArn"]
}

output "alarm_topic_arn" {
  description = "The SNS topic for alarms."
  value       = aws_cloudformation_stack.rotator.outputs["AlarmTopicArn"]
}

output "dashboard_name" {
  description = "The CloudWatch dashboard."
  value       = aws_cloudformation_stack.rotator.outputs["DashboardName"]
}

output "outputs" {
  description = "All outputs of the stack, such as InvokeCommand and StatusCommand."
  value       = aws_cloudformation_stack.rotator.outputs
}
