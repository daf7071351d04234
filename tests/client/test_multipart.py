"""The multipart body and decoder, against the encoder that the real server uses and a decoder that is not ours."""

from __future__ import annotations

import os

import pytest
from Rep3DLabelLib.client.multipart import MultipartUpload, image_suffix, parse_multipart
from Rep3DLabelLib.errors import BadAnswer, LocalProblem
from requests_toolbelt import MultipartDecoder, MultipartEncoder

CONTENTS = [
    b"",
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n--",
    b"--boundary and more",
    b"x--boundary--\r\n",
    b"\n--boundary--\n",
    b"\r\n--boundaryX\r\n",
    b"\r\n\r\nnot: a header\r\n\r\n",
    bytes(range(256)) * 3,
    b"\x1f\x8b\x00\x85\xe2\x80\xa8\x0b\x0c\x1c",
    "ümläut".encode() + b"\r\r\n",
]


def encode(content, filename="l.nii.gz"):
    fields = {
        "params": (None, '{"a": 1}', "application/json"),
        "image": (filename, content, "application/octet-stream"),
    }
    encoder = MultipartEncoder(fields=fields, boundary="boundary")
    return encoder.to_string(), encoder.content_type


@pytest.mark.parametrize("content", [*CONTENTS, os.urandom(300_000)], ids=range(len(CONTENTS) + 1))
def test_contents_are_untouched(content):
    parts = parse_multipart(*encode(content))
    assert list(parts) == ["params", "image"]
    assert parts["image"].content == content and parts["image"].content_type == "application/octet-stream"
    assert parts["params"].content == b'{"a": 1}' and parts["params"].filename == ""


@pytest.mark.parametrize(
    ("sent", "read"), [("l.nii.gz", "l.nii.gz"), ("Jürgen 1.nii", "Jürgen 1.nii"), ("../a/l.nii", "l.nii")]
)
def test_file_names_lose_their_folders(sent, read):
    assert parse_multipart(*encode(b"x", sent))["image"].filename == read


def test_the_boundary_may_be_quoted_and_followed_by_blanks():
    body = b"preamble\r\n--b c \t\r\ncontent-disposition: form-data; name=n\r\n\r\nx\r\n--b c-- \r\nepilogue"
    assert parse_multipart(body, 'multipart/form-data; charset=utf-8; boundary="b c"')["n"].content == b"x"


def test_every_cut_is_noticed():
    body, content_type = encode(b"0123456789")
    end = body.index(b"--boundary--") + len(b"--boundary--")
    for length in range(end):
        with pytest.raises(BadAnswer):
            parse_multipart(body[:length], content_type)
    assert parse_multipart(body[:end], content_type)["image"].content == b"0123456789"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"--b\r\n\r\nx\r\n--b--", "multipart/form-data"),
        (b"--b\r\n\r\nx\r\n--b--", "text/plain; boundary=b"),
        (b"--b\r\n\r\nx\r\n--b--", "multipart/form-data; boundary=b"),
        (b"--b\r\nContent-Disposition: form-data; name=x\r\n--b--", "multipart/form-data; boundary=b"),
        (b"", "multipart/form-data; boundary=b"),
    ],
)
def test_what_is_no_multipart_answer_is_refused(body, content_type):
    with pytest.raises(BadAnswer):
        parse_multipart(body, content_type)


@pytest.mark.parametrize("block", [1, 7, 8192, 10**9, -1])
def test_an_upload_is_read_in_any_blocks(tmp_path, block):
    source = tmp_path / "Müller.12.NII.GZ"
    content = os.urandom(3000) if block == 1 else os.urandom(100_000)
    source.write_bytes(content)
    with MultipartUpload("label", source, {"params": {"who": "ä"}}) as upload:
        length, content_type = len(upload), upload.content_type
        body = b"".join(iter(lambda: upload.read(block), b""))
    assert len(body) == length
    params, label = MultipartDecoder(body, content_type).parts
    assert params.text == '{"who": "\\u00e4"}' and label.content == content
    assert label.headers[b"Content-Disposition"] == b'form-data; name="label"; filename="label.nii.gz"'


def test_a_file_that_shrinks_while_it_is_sent(tmp_path):
    source = tmp_path / "a.nii"
    source.write_bytes(b"0" * 1000)
    with MultipartUpload("file", source, {}) as upload:
        source.write_bytes(b"")
        with pytest.raises(LocalProblem, match="shorter"):
            list(upload)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("p.12.nii.gz", ".nii.gz"), ("a.NRRD", ".nrrd"), ("a.seg.nrrd", ".seg.nrrd"), ("a", ""), ("a.b/c.gz", ".gz")],
)
def test_image_suffix(name, suffix):
    assert image_suffix(name) == suffix
