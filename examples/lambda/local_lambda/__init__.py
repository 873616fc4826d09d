"""A small AWS Lambda on loopback: Runtime API, Extensions API, and a freezer that bites as hard as
the real one.

`sandbox.Function` starts AWS's own runtime client (`python -m awslambdaric`) as a child process
group, gives it invocations, and stops the whole group (SIGSTOP) exactly when Lambda would: after
the runtime *and* every registered extension have asked for the next event. `intake.Intake` is an
events server behind TLS and a network that needs 40 ms for a round trip; on plain loopback a lost
event would hide in the kernel's buffers.
"""
