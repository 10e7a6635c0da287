"""The examples of Amazon's own page on the signature, "Transferring Payload in a Single Chunk"."""

from __future__ import annotations

from datetime import UTC, datetime

from worker.aws_signature import S3Key, quoted_path, signed_headers

KEY = S3Key("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1")
AT = datetime(2013, 5, 24, tzinfo=UTC)
BUCKET = "https://examplebucket.s3.amazonaws.com"
HEAD = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders="


def test_an_object_that_is_read():
    made = signed_headers("GET", f"{BUCKET}/test.txt", b"", {"range": "bytes=0-9"}, key=KEY, at=AT)
    assert made["authorization"] == (
        f"{HEAD}host;range;x-amz-content-sha256;x-amz-date,"
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )


def test_an_object_that_is_written_under_a_name_that_must_be_quoted():
    headers = {"date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"}
    made = signed_headers(
        "PUT", f"{BUCKET}/test$file.text", b"Welcome to Amazon S3.", headers, key=KEY, at=AT
    )
    assert made["authorization"] == (
        f"{HEAD}date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class,"
        "Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
    )
    assert quoted_path("/test$file.text") == "/test%24file.text"
