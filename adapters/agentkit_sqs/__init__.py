"""The queue on Amazon SQS, and the two handlers of a function on AWS Lambda: `sqs://eu-central-1/agents`."""

from agentkit_sqs.handlers import lambda_handler, tick_handler
from agentkit_sqs.queue import SqsQueue
from agentkit_sqs.settings import SqsSettings

__all__ = ["SqsQueue", "SqsSettings", "lambda_handler", "tick_handler"]
