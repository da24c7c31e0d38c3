"""Environment variables for the local S3 server."""

BUCKET = "atlas"
SECRET = "never-to-be-seen"


def environment(endpoint: str) -> dict[str, str]:
    """Return the variables that point to a server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }
