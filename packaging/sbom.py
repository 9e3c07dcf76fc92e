"""Writes what a package holds, as CycloneDX 1.6 (JSON): the relay, and each locked library that Linux installs."""

import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[1]
_ENTRY: Final = re.compile(r"^[A-Za-z0-9].*(?:\n[ \t].*)*", re.MULTILINE)
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def locked(lock: str, python: str) -> Iterator[tuple[str, str, list[str]]]:
    """Return name, version and hashes of what a lock installs on Linux with a version of Python, e.g. "3.11"."""
    for entry in _ENTRY.findall(lock):
        text = entry.partition("\\")[0].partition(" #")[0].strip()
        need = Requirement(text)
        environment = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "extra": ""}
        environment |= {"python_version": python, "python_full_version": f"{python}.0"}
        if need.marker is None or need.marker.evaluate(environment):
            (exact,) = need.specifier
            yield canonicalize_name(need.name), exact.version, _HASH.findall(entry)


def licences(site: Path) -> dict[str, str]:
    """Return the licences that installed libraries declare, by name."""
    found = {}
    for each in distributions(path=[str(site)]):
        metadata = each.metadata
        text = metadata.get("License-Expression") or metadata.get("License") or ""
        classified = [line for line in metadata.get_all("Classifier", []) if line.startswith("License :: ")]
        short = text if text and "\n" not in text else ", ".join(line.rpartition(" :: ")[2] for line in classified)
        if short:
            found[canonicalize_name(metadata["Name"])] = short
    return found


def sbom(project: Mapping[str, Any], lock: str, python: str, known: Mapping[str, str]) -> dict[str, Any]:
    """Return the bill of materials of the relay with the libraries of a lock; `known` are their licences."""
    purl = f"pkg:pypi/{project['name']}@{project['version']}"
    components = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
            **({"licenses": [{"license": {"name": known[name]}}]} if name in known else {}),
            "hashes": [{"alg": "SHA-256", "content": each} for each in hashes],
        }
        for name, version, hashes in locked(lock, python)
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": purl,
                "name": project["name"],
                "version": project["version"],
                "purl": purl,
                "licenses": [{"license": {"id": project["license"]}}],
            }
        },
        "components": components,
        "dependencies": [{"ref": purl, "dependsOn": [each["purl"] for each in components]}],
    }


def write(target: Path, python: str, site: Path | None = None) -> None:
    """Write the bill of materials of a package for a version of Python; `site` has the libraries."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lock = (ROOT / "requirements/run.txt").read_text(encoding="utf-8")
    known = licences(site) if site is not None else {}
    target.write_text(json.dumps(sbom(project, lock, python, known), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if not sys.argv[1:]:
        raise SystemExit("usage: sbom.py FILE [SITE-PACKAGES]")
    write(Path(sys.argv[1]), f"{sys.version_info.major}.{sys.version_info.minor}", *map(Path, sys.argv[2:3]))
