"""The app's side of the relay's registration API."""

from push_relay_client.advice import Step, advise, advise_refusal, advise_test
from push_relay_client.api import RelayApi
from push_relay_client.app import App, MemoryStore, Store
from push_relay_client.problem import Problem, Refused, Unreachable
from push_relay_client.push import Attention, Challenge, NewItems, Push, TestPush, Unknown, read_push
from push_relay_client.registration import Identity, Registration, TestResult
from push_relay_client.wish import Apns, Basic, Certificate, Fcm, Fid, Kerberos, OAuth, WebPush, Wish

__all__ = [
    "Apns",
    "App",
    "Attention",
    "Basic",
    "Certificate",
    "Challenge",
    "Fcm",
    "Fid",
    "Identity",
    "Kerberos",
    "MemoryStore",
    "NewItems",
    "OAuth",
    "Problem",
    "Push",
    "Refused",
    "Registration",
    "RelayApi",
    "Step",
    "Store",
    "TestPush",
    "TestResult",
    "Unknown",
    "Unreachable",
    "WebPush",
    "Wish",
    "advise",
    "advise_refusal",
    "advise_test",
    "read_push",
]
