"""What several test files share: ways to cut bytes, a transport and a loop without time or sockets."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The folder of the project."""
