"""How the environment names an S3 server of ours."""

BUCKET = "atlas"
SECRET = "never-to-be-seen"


def environment(endpoint: str) -> dict[str, str]:
    """The variables that point at a server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }
