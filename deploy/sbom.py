"""Writes a software bill of materials (CycloneDX 1.6) and checks the licences in it.

    python deploy/sbom.py sbom.cdx.json

Its components are the packages that requirements.lock installs here, each with what its wheel
bundles: what the wheel states itself (PEP 770), and below, for wheels that state nothing, the C
libraries that decode what strangers send. Ends with 1 where a licence is neither permissive nor an
exception with a reason.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT: Final = Path(__file__).resolve().parents[1]
PERMISSIVE: Final = re.compile(
    r"MIT(-0|-CMU)?|0?BSD(-[23]-Clause)?|Apache-2\.0|Apache-2\.0 WITH LLVM-exception|ISC|Zlib"
    r"|Python-2\.0|PSF-2\.0|CNRI-Python|CC0-1\.0|Unlicense|BSL-1\.0|HPND|MPL-2\.0"
)
"""MPL-2.0 binds changes to its own files alone."""
OTHER_NAMES: Final = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "License :: DFSG approved": "MIT",
}
STATED_ELSEWHERE: Final = {
    "antlr4-python3-runtime": "BSD-3-Clause",
    "protobuf": "BSD-3-Clause",
    "ray": "Apache-2.0",
    "torchvision": "BSD-3-Clause",
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",
    "nvidia-cusparselt-cu13": "LicenseRef-NVIDIA-Proprietary",
}
"""By package: its metadata names none that a machine can read; each was looked up in its files."""
EXCEPTIONS: Final = {
    "LicenseRef-NVIDIA-Proprietary": "CUDA for torch, which may be used and passed on unchanged",
    "LGPL-2.1-or-later": "FFmpeg in OpenCV's wheel, files of their own that nothing here calls",
}
BUNDLED: Final = {
    "imagecodecs": (
        ("CharLS", None, "BSD-3-Clause"),
        ("libjpeg-turbo", None, "BSD-3-Clause"),
        ("OpenJPEG", None, "BSD-2-Clause"),
    ),
    "isal": (("ISA-L", None, "BSD-3-Clause"),),
    "opencv-python-headless": (("FFmpeg", None, "LGPL-2.1-or-later"),),
    "openvino": (
        ("oneDNN", None, "Apache-2.0"),
        ("oneTBB", None, "Apache-2.0"),
        ("hwloc", None, "BSD-3-Clause"),
        ("pugixml", None, "MIT"),
    ),
    "pyjpegls": (("CharLS", "2.4.2", "BSD-3-Clause"),),
    "python-gdcm": (("GDCM", "3.2.6", "BSD-3-Clause"),),
    "torchvision": (
        ("libjpeg-turbo", None, "BSD-3-Clause"),
        ("libpng", None, "Zlib"),
        ("libwebp", None, "BSD-3-Clause"),
        ("zlib", None, "Zlib"),
    ),
}
"""By package, what its wheel holds and does not state: name, version where known, licence."""


def make_bill() -> dict[str, Any]:
    """Return the bill of this environment, valid by CycloneDX's schema.

    Raises:
        ValueError: It is not.
    """
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--of", "JSON", "--sv", "1.6"]
    command += ["--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "application"]
    done = subprocess.run(
        [*command, sys.executable], capture_output=True, text=True, check=True, cwd=ROOT
    )
    bill: dict[str, Any] = json.loads(done.stdout)
    locked = locked_packages()
    bill["components"] = [part for part in bill["components"] if normal(part["name"]) in locked]
    kept = {part["bom-ref"] for part in bill["components"]} | {"root-component"}
    bill["dependencies"] = [
        {**link, "dependsOn": [name for name in link.get("dependsOn", []) if name in kept]}
        for link in bill["dependencies"]
        if link["ref"] in kept
    ]
    for part in bill["components"]:
        name = normal(part["name"])
        if name in STATED_ELSEWHERE:
            part["licenses"] = [{"expression": STATED_ELSEWHERE[name]}]
        within = []
        for found in (*stated_by_the_wheel(name), *known_within(name)):
            within += [] if found in within else [found]
        if within:
            part["components"] = within
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill))
    if fault is not None:
        raise ValueError(f"The bill is not CycloneDX: {fault}")
    return bill


def locked_packages() -> set[str]:
    """Return the names that requirements.lock pins."""
    text = (ROOT / "requirements.lock").read_text()
    return {normal(name) for name in re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*\])?==", text, re.M)}


def normal(name: str) -> str:
    """Return a package's name as the index spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def stated_by_the_wheel(package: str) -> Iterator[dict[str, Any]]:
    """Yield the components of the bills in a wheel, `*.dist-info/sboms/`, each with its version."""
    for file in metadata.files(package) or ():
        if "sboms" not in file.parts or file.suffix != ".json":
            continue
        inner = json.loads(Path(str(file.locate())).read_text())
        for part in inner.get("components", []):
            wanted = ("type", "name", "version", "purl")
            found = {key: part[key] for key in wanted if part.get(key)}
            if normal(found["name"]) != package:
                yield found


def known_within(package: str) -> Iterator[dict[str, Any]]:
    """Yield what a wheel is known to bundle although it does not state it."""
    for name, version, licence in BUNDLED.get(package, ()):
        part = {"type": "library", "name": name, "licenses": [{"expression": licence}]}
        yield part if version is None else {**part, "version": version}


def licence_faults(bill: dict[str, Any]) -> list[str]:
    """Return a sentence for each part whose licence is neither permissive nor an exception.

    A part within a wheel that states no licence counts as covered by the wheel's own.
    """
    faults = []
    for package in bill["components"]:
        for part in (package, *package.get("components", [])):
            texts = [text for entry in part.get("licenses", []) for text in licence_texts(entry)]
            accepted = any(is_accepted(OTHER_NAMES.get(text, text)) for text in texts)
            if not accepted and (texts or part is package):
                stated = " / ".join(texts) or "no licence"
                faults.append(f"{part['name']} {part.get('version', '')}: {stated}.")
    return faults


def licence_texts(entry: dict[str, Any]) -> Iterator[str]:
    """Yield what one entry of a component's licences says."""
    licence = entry.get("license", {})
    for text in (entry.get("expression"), licence.get("id"), licence.get("name")):
        if text:
            yield str(text)


def is_accepted(expression: str) -> bool:
    """Return whether an SPDX expression allows what this software does: all of AND, one of OR."""
    return any(
        all(
            PERMISSIVE.fullmatch(part.strip(" ()")) or part.strip(" ()") in EXCEPTIONS
            for part in choice.split(" AND ")
        )
        for choice in expression.split(" OR ")
    )


def main(output: str) -> int:
    """Write the bill and state what was found."""
    bill = make_bill()
    Path(output).write_text(json.dumps(bill, indent=1) + "\n")
    within = sum(len(part.get("components", [])) for part in bill["components"])
    print(f"{len(bill['components'])} packages, {within:,} parts within them: {output}")
    faults = licence_faults(bill)
    print("\n".join(faults) or "Licences: all permissive, or exceptions with their reasons.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
