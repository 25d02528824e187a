from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.api.model_deployment import ModelSource
from stoker.api.resolved import ParsedSource
from stoker.errors import Stalled
from stoker.models.source import file_urls, parse_adapter, parse_source

HTTPS = "https://huggingface.co/Qwen/Qwen3-8B-GGUF/resolve/main/Qwen3-8B-Q4_K_M.gguf"


def parse(uri: str, **more: object) -> ParsedSource:
    return parse_source(ModelSource.model_validate({"uri": uri, **more}))


def refusal(uri: str, **more: object) -> str:
    with pytest.raises(Stalled) as caught:
        parse(uri, **more)
    assert caught.value.reason == "InvalidSource"
    return caught.value.message


def test_an_https_source_is_one_file_in_a_folder_of_its_own() -> None:
    source = parse(HTTPS)
    assert (source.scheme, source.files, source.downloaded) == ("https", ("Qwen3-8B-Q4_K_M.gguf",), True)
    assert len(source.digest) == 16
    assert file_urls(source) == (HTTPS,)


def test_the_digest_depends_on_uri_and_checksums_and_nothing_else() -> None:
    name = "Qwen3-8B-Q4_K_M.gguf"
    digests = {
        parse(HTTPS).digest,
        parse(HTTPS + "?download=true").digest,
        parse(HTTPS, sha256={name: "a" * 64}).digest,
        parse(HTTPS, sha256={name: "b" * 64}).digest,
    }
    assert len(digests) == 4
    assert parse(HTTPS, secretRef={"name": "token"}).digest == parse(HTTPS).digest


def test_the_query_belongs_to_the_url_and_not_to_the_file_name() -> None:
    source = parse("http://host:8080/m.gguf?download=true&x=a/b")
    assert source.files == ("m.gguf",)
    assert file_urls(source) == ("http://host:8080/m.gguf?download=true&x=a/b",)


def test_the_first_part_of_a_split_model_stands_for_all_parts() -> None:
    source = parse("https://host/x/big-00001-of-00012.gguf?sig=1")
    assert len(source.files) == 12
    assert source.files[0] == "big-00001-of-00012.gguf"
    assert source.files[11] == "big-00012-of-00012.gguf"
    assert file_urls(source)[11] == "https://host/x/big-00012-of-00012.gguf?sig=1"


def test_urls_of_parts_keep_the_encoding_that_the_user_chose() -> None:
    source = parse("https://host/a%20dir/my%20big%2Bmodel-00001-of-00002.gguf")
    assert source.files == ("my big+model-00001-of-00002.gguf", "my big+model-00002-of-00002.gguf")
    assert file_urls(source)[1] == "https://host/a%20dir/my%20big%2Bmodel-00002-of-00002.gguf"


def test_a_part_number_that_is_itself_encoded_is_encoded_anew() -> None:
    source = parse("https://host/m-0000%31-of-00002.ggu%66")
    assert file_urls(source)[1] == "https://host/m-00002-of-00002.gguf"


@given(
    st.text(
        st.characters(codec="utf-8", exclude_characters="/\\", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]),
        min_size=1,
        max_size=20,
    )
)
def test_any_name_survives_percent_encoding(stem: str) -> None:
    from urllib.parse import quote

    if stem.startswith("."):
        stem = "x" + stem
    assert parse(f"https://host/{quote(stem, safe='')}.gguf").files == (stem + ".gguf",)


def test_a_claim_is_taken_apart_into_claim_folder_and_file() -> None:
    source = parse("pvc://weights/qwen/8b/m%20x.gguf")
    assert (source.claim, source.path, source.files, source.digest) == ("weights", "qwen/8b", ("m x.gguf",), "")
    assert not source.downloaded
    assert parse("pvc://weights/m.gguf").path == ""


def test_a_file_is_taken_apart_into_directory_and_file() -> None:
    source = parse("file:///srv/models/m-00001-of-00002.gguf")
    assert (source.path, source.files) == ("/srv/models", ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf"))


def test_one_file_of_a_repository_is_fetched_like_any_file() -> None:
    source = parse("hf://Qwen/Qwen3-8B-GGUF/sub/m.gguf", revision="refs/pr/1", secretRef={"name": "hub"})
    assert (source.scheme, source.shape, source.downloaded) == ("https", "File", True)
    assert file_urls(source) == ("https://huggingface.co/Qwen/Qwen3-8B-GGUF/resolve/refs%2Fpr%2F1/sub/m.gguf",)
    at_main = parse("hf://Qwen/Qwen3-8B-GGUF/m.gguf")
    assert at_main.digest == parse("https://huggingface.co/Qwen/Qwen3-8B-GGUF/resolve/main/m.gguf").digest


def test_a_whole_repository_is_left_to_the_engine() -> None:
    source = parse("hf://Qwen/Qwen3-8B-AWQ", revision="abc123", secretRef={"name": "hub"})
    assert (source.shape, source.reference, source.revision) == ("Repository", "Qwen/Qwen3-8B-AWQ", "abc123")
    assert (source.downloaded, source.fetched_by_engine, source.cached, source.digest) == (False, True, True, "")
    assert "remove source.sha256" in refusal("hf://Qwen/Qwen3-8B-AWQ", sha256={"x": "a" * 64})


@pytest.mark.parametrize("name", ["qwen3", "qwen3:8b", "library/qwen3:8b-q4_K_M", "registry.example.com/team/m:1"])
def test_a_name_of_the_ollama_library_is_left_to_ollama(name: str) -> None:
    source = parse(f"ollama://{name}")
    assert (source.shape, source.reference, source.cached) == ("Library", name, True)


def test_weights_in_the_cluster_may_be_a_folder() -> None:
    claim, node = parse("pvc://weights/qwen3-8b/awq/"), parse("file:///srv/models/qwen3-8b-awq")
    assert (claim.shape, claim.claim, claim.path, claim.files) == ("Folder", "weights", "qwen3-8b/awq", ())
    assert (node.shape, node.path, node.cached) == ("Folder", "/srv/models/qwen3-8b-awq", False)


def test_a_revision_belongs_to_repositories() -> None:
    assert "has no revisions" in refusal("https://host/m.gguf", revision="main")


def test_an_adapter_is_a_repository_or_a_path_of_a_claim() -> None:
    assert parse_adapter("hf://org/lora").reference == "org/lora"
    assert parse_adapter("pvc://weights/loras/legal").path == "loras/legal"
    assert parse_adapter("pvc://weights/loras/legal.gguf").files == ("legal.gguf",)
    for wrong in ("hf://org/lora/file.gguf", "https://host/lora", "hf://org"):
        with pytest.raises(Stalled, match="InvalidSource"):
            parse_adapter(wrong)


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("Qwen/Qwen3-8B", "has no scheme"),
        ("hf://alone", "must read hf://ORG/REPO"),
        ("hf://Qwen/../x.gguf", "must read hf://ORG/REPO"),
        ("hf://Qwen/Qwen3-8B/model.safetensors", "does not end in the name of a GGUF file"),
        ("s3://bucket/m.gguf", "uses s3://, which is not supported"),
        ("ollama://qwen3:8b:x", "must read ollama://NAME or ollama://NAME:TAG"),
        ("ollama://a/b/c/d", "must read ollama://NAME or ollama://NAME:TAG"),
        ("https:///m.gguf", "has no host name"),
        ("https://[::1/m.gguf", "is not a valid URL"),
        ("https://host:99999/m.gguf", "is not a valid URL"),
        ("https://host/m.gguf#x", "has a fragment"),
        ("https://host/", "does not end in the name of a GGUF file"),
        ("https://host/.gguf", "does not end in the name of a GGUF file"),
        ("https://host/model.safetensors", "does not end in the name of a GGUF file"),
        ("https://huggingface.co/Q/R/blob/main/m.gguf", "use https://huggingface.co/Q/R/resolve/main/m.gguf"),
        ("https://host/..%2F..%2Fetc%2Fm.gguf", "names a file that cannot be stored"),
        ("https://host/.hidden.gguf", "names a file that cannot be stored"),
        ("https://host/a%00.gguf", "names a file that cannot be stored"),
        ("https://host/" + "x" * 300 + ".gguf", "names a file that cannot be stored"),
        ("https://host/m-00002-of-00003.gguf", "name the first part, m-00001-of-00003.gguf"),
        ("https://host/m-00001-of-00000.gguf", "is split into 0 parts"),
        ("https://host/m-00001-of-00999.gguf", "is split into 999 parts"),
        ("file://srv/m.gguf", "with three slashes"),
        ("file:///m.gguf", "root directory"),
        ("file:///srv/../etc/m.gguf", "must be a plain path"),
        ("file:///srv/%2e%2e/m.gguf", "must be a plain path"),
        ("file:///srv//m.gguf", "must be a plain path"),
        ("file:///srv/m.gguf?x", "has a query or fragment"),
        ("pvc://weights", "must read pvc://CLAIM/PATH"),
        ("pvc://Weights/m.gguf", "must read pvc://CLAIM/PATH"),
        ("pvc://weights/../m.gguf", "must be a plain path"),
        ("pvc://weights/qwen3/model.safetensors", "name the folder, pvc://weights/qwen3"),
        ("file:///srv/qwen3/model-00001-of-00002.safetensors", "name the folder, file:///srv/qwen3"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_refused_with_the_next_step(uri: str, told: str) -> None:
    message = refusal(uri)
    assert told in message
    assert uri in message or "@" in uri


def test_credentials_in_the_url_are_refused_and_not_repeated() -> None:
    message = refusal("https://user:hunter2@host/m.gguf")
    assert "source.secretRef" in message
    assert "hunter2" not in message


def test_checksums_must_name_files_of_the_source() -> None:
    message = refusal("https://host/m.gguf", sha256={"other.gguf": "a" * 64})
    assert "'other.gguf'" in message
    assert "m.gguf" in message
    many = refusal("https://host/m-00001-of-00009.gguf", sha256={"other.gguf": "a" * 64})
    assert many.endswith("m-00003-of-00009.gguf …")


def test_checksums_and_tokens_belong_to_downloads() -> None:
    assert "is not downloaded" in refusal("pvc://weights/m.gguf", sha256={"m.gguf": "a" * 64})
    assert "is not downloaded" in refusal("file:///srv/m.gguf", secretRef={"name": "token"})
