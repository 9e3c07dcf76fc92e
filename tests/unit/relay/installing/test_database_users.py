import base64
import hashlib
import hmac
from itertools import count

from relay.installing.database_users import users_sql, verifier


def test_a_verifier_is_that_of_the_specification() -> None:
    """User and password of RFC 7677, whose server signature this server key makes."""
    made = verifier("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="))

    head, keys = made.rsplit("$", 1)
    stored, server = (base64.b64decode(part) for part in keys.split(":"))
    message = (
        b"n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    client = bytes(a ^ b for a, b in zip(proof, hmac.digest(stored, message, "sha256"), strict=True))
    assert head == "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
    assert hashlib.sha256(client).digest() == stored
    assert hmac.digest(server, message, "sha256") == base64.b64decode("6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


def test_the_statements_hold_no_password() -> None:
    salts = count(1)
    text = users_sql({"relay": "owner-word", "relay_api": "api-word"}, lambda: bytes([next(salts)] * 16))

    assert "-word" not in text
    assert text.count("CREATE ROLE relay") == 2
    assert text.endswith("CREATE DATABASE relay OWNER relay;\n")
