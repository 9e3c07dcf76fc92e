import ast
import re
import ssl
import warnings
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from eas_watcher.transport.tls import CERTIFICATES, HANDSHAKES, client_context, in_words, remedy_of
from tests.fakes.chains import Authority, self_signed, serving_context, shake

ROOT = Path(__file__).parents[4]
CA = Authority()
WEAK = rsa.generate_private_key(65537, 1024)  # noqa: S505 -- the weak key
NARROW = Authority("CA of a branch", issuer=CA, only_for="branch.example.com")


def refusal(chain: bytes, client: ssl.SSLContext | None = None, name: str = "mail.example.com") -> str:
    with pytest.raises(ssl.SSLError) as caught:
        shake(serving_context(chain), client or client_context(ca_pem=CA.pem), name)
    return in_words(caught.value)


def test_a_sound_chain_is_trusted() -> None:
    assert shake(serving_context(CA.server()), client_context(ca_pem=CA.pem)) == "TLSv1.3"
    assert shake(serving_context(CA.server()), client_context(ca_pem=CA.pem, strict=True)) == "TLSv1.3"


def test_verification_is_always_on_and_alike_with_every_python() -> None:
    context = client_context()

    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_flags == ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN


@pytest.mark.parametrize(
    ("ca", "leaf"),
    [
        (Authority(critical=False), {}),
        (Authority(subject_id=False), {}),
        (Authority(key_usage=False), {}),
        (CA, {"authority_id": False}),
    ],
    ids=["basic constraints not critical", "no subject key id", "no key usage", "no authority key id"],
)
def test_an_in_house_ca_of_an_older_form_is_trusted_where_strict_software_refuses_it(
    ca: Authority, leaf: dict[str, bool]
) -> None:
    chain = ca.server(**leaf)  # type: ignore[arg-type]  # one property each
    as_python_3_13 = client_context(ca_pem=ca.pem, strict=True)

    assert shake(serving_context(chain), client_context(ca_pem=ca.pem)) == "TLSv1.3"
    assert "certificate not trusted" in refusal(chain, as_python_3_13)


def test_an_issuing_ca_in_the_file_is_enough() -> None:
    issuing = Authority("Issuing CA", issuer=CA)

    assert shake(serving_context(issuing.server()), client_context(ca_pem=issuing.pem))
    assert shake(serving_context(issuing.server(chain=issuing.pem)), client_context(ca_pem=CA.pem))


@pytest.mark.parametrize("chain", [self_signed(), CA.server()], ids=["self-signed", "of a CA"])
def test_the_servers_own_certificate_in_the_file_is_enough(chain: bytes) -> None:
    own = chain.partition(b"-----BEGIN PRIVATE KEY")[0]

    assert shake(serving_context(chain), client_context(ca_pem=own)) == "TLSv1.3"


@pytest.mark.parametrize(
    ("chain", "said", "remedy"),
    [
        (self_signed(), "self-signed certificate", "name this very certificate in ca_file"),
        (Authority("Unknown CA").server(), "unable to get local issuer", "name the CA in ca_file"),
        (
            Authority("Issuing CA", issuer=CA).server(),
            "unable to get local issuer",
            "send its intermediate certificates",
        ),
        (CA.server(days=(-90, -1)), "expired", "renew the server's certificate"),
        (CA.server(days=(1, 90)), "not yet valid", "clock of this host"),
        (CA.server(["other.example.com"]), "Hostname mismatch", "a name in the URL that the certificate has"),
        (CA.server(purpose=ExtendedKeyUsageOID.CLIENT_AUTH), "certificate purpose", "serverAuth"),
        (CA.server(key=WEAK), "too weak|too small", "RSA 2048"),
        (NARROW.server(chain=NARROW.pem), "permitted subtree violation", "the CA's name constraints"),
    ],
    ids=["self-signed", "unknown CA", "no intermediate", "expired", "not yet", "name", "purpose", "weak key", "narrow"],
)
def test_a_certificate_that_is_not_trusted_is_explained(chain: bytes, said: str, remedy: str) -> None:
    words = refusal(chain)

    assert words.startswith("certificate not trusted: ")
    assert any(part in words for part in said.split("|"))
    assert remedy in words


def test_an_address_that_the_certificate_lacks_is_explained() -> None:
    assert "let the CA add this address" in refusal(CA.server(), name="192.0.2.1")


def test_a_server_without_a_current_tls_is_explained() -> None:
    old = serving_context(CA.server())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the version is
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError) as caught:
        shake(old, client_context(ca_pem=CA.pem))

    assert "switch TLS 1.2 on" in in_words(caught.value)


def test_a_reason_without_words_is_named() -> None:
    unknown = ssl.SSLError(1, "x")
    unknown.reason = "SOMETHING_NEW"
    silent = ssl.SSLError(1, "x")
    silent.reason = ""

    assert in_words(unknown) == "no TLS: SOMETHING_NEW"
    assert in_words(silent) == "no TLS: SSLError"
    assert "[RFC 5746]" in HANDSHAKES["UNSAFE_LEGACY_RENEGOTIATION_DISABLED"]


@pytest.mark.parametrize("kind", [ssl.SSLZeroReturnError, ssl.SSLEOFError])
def test_an_end_during_the_handshake_is_explained_with_every_python(kind: type[ssl.SSLError]) -> None:
    ended = kind(6, "TLS/SSL connection has been closed (EOF)")
    ended.reason = ""

    assert "closes during the handshake" in in_words(ended)


def test_a_remedy_is_named_unless_the_ca_is_what_is_missing() -> None:
    with pytest.raises(ssl.SSLCertVerificationError) as expired:
        shake(serving_context(CA.server(days=(-90, -1))), client_context(ca_pem=CA.pem))
    with pytest.raises(ssl.SSLCertVerificationError) as foreign:
        shake(serving_context(Authority("Unknown CA").server()), client_context(ca_pem=CA.pem))

    assert remedy_of(expired.value) == CERTIFICATES[10]
    assert remedy_of(foreign.value) == remedy_of(OSError()) == ""


def test_a_file_without_a_certificate_raises_what_settings_expect(tmp_path: Path) -> None:
    (tmp_path / "none.pem").write_text("no certificate")

    with pytest.raises(ssl.SSLError):
        client_context(tmp_path / "none.pem")
    with pytest.raises(FileNotFoundError):
        client_context(tmp_path / "missing.pem")


def test_no_other_place_makes_a_context_of_a_client() -> None:
    made = []
    for file in [*ROOT.glob("eas_watcher/**/*.py"), *ROOT.glob("relay/**/*.py")]:
        source = file.read_text(encoding="utf-8")
        if not re.search(r"create_default_context|SSLContext|_create_unverified_context", source):
            continue  # most files; to write each of their calls down takes seconds
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call):
                called = ast.unparse(node)
                context = "create_default_context(" in called.partition(")")[0] or called.startswith("ssl.SSLContext(")
                weak = "_create_unverified_context" in called
                server = "Purpose.CLIENT_AUTH" in called or called.startswith("ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)")
                if weak or (context and not server):
                    made.append((file.relative_to(ROOT).as_posix(), called))

    looks_at_its_own_listener = "relay/doctor/host.py"  # whatever certificate that shows, and sends it nothing
    assert sorted(made) == [
        ("eas_watcher/transport/tls.py", "ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)"),
        (looks_at_its_own_listener, "ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)"),
    ]
