"""Turns open_inference.proto into descriptors.py: `make proto` runs this where grpcio-tools is installed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent.parent / "src/leaven/gateway/grpc"


def main() -> None:
    """Write the compiled protocol beside its source, as Python that any version of protobuf can read."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "descriptors"
        subprocess.run(
            [sys.executable, "-m", "grpc_tools.protoc", f"-I{HERE}", f"--descriptor_set_out={compiled}",
             "open_inference.proto"],
            check=True,
        )  # fmt: skip
        content = compiled.read_bytes()
    pieces = [content[start : start + 48] for start in range(0, len(content), 48)]
    lines = "\n".join(f"    {piece!r}" for piece in pieces)
    (HERE / "descriptors.py").write_text(
        '"""The compiled open_inference.proto, as a FileDescriptorSet. Made by `make proto`; not to be edited."""\n\n'
        f"SET = (\n{lines}\n)\n"
    )


if __name__ == "__main__":
    main()
