"""An unmodified writer: boto3 puts what stands on standard input into one secret, and makes the secret where there is none.

Arguments: endpoint, secret."""

import sys

import boto3

endpoint, secret = sys.argv[1:3]
client = boto3.client(
    "secretsmanager",
    endpoint_url=endpoint,
    region_name="us-east-1",
    aws_access_key_id="test",
    aws_secret_access_key="test",
)
value = sys.stdin.read()
try:
    client.put_secret_value(SecretId=secret, SecretString=value)
except client.exceptions.ResourceNotFoundException:
    client.create_secret(Name=secret, SecretString=value)
