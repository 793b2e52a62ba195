"""What several test files share: ways to cut bytes, a transport and a loop without time or sockets."""
