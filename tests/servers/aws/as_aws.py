"""Where moto, which is in LocalStack as well, does something else than AWS says, and the tests lean on it: a new current version takes
AWSCURRENT from whichever version bears it, which becomes AWSPREVIOUS and keeps its other labels. moto takes all labels, from
the version that was current when a value was last written."""

from moto.secretsmanager.models import FakeSecret


def becomes_current(self, secret_version, version_id):
    for version in self.versions.values():
        labels = version["version_stages"]
        version["version_stages"] = [label for label in labels if label not in ("AWSCURRENT", "AWSPREVIOUS")]
        if "AWSCURRENT" in labels:
            version["version_stages"].append("AWSPREVIOUS")
    self.versions[version_id] = secret_version
    self.default_version_id = version_id


FakeSecret.reset_default_version = becomes_current
