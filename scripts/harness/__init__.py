"""What the demo, the benchmarks and the whole-system tests share: a server to talk to, and words to read its answers.

Everything here treats Rekindle as a user does: it starts the real binary, speaks to it with boto3, the AWS CLI or plain
HTTP, and reads the log lines that Lambda documents. Nothing here knows the server's insides.
"""
