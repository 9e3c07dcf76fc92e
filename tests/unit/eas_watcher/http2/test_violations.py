from eas_watcher.http2.violations import ErrorCode, Malformed, Violation, error_name


def test_codes_have_names_and_unknown_ones_their_number() -> None:
    assert error_name(0xD) == "HTTP_1_1_REQUIRED"
    assert error_name(0xBEEF) == "48879"


def test_a_violation_has_its_code() -> None:
    violation = Violation(ErrorCode.CANCEL, "enough")

    assert (violation.code, str(violation)) == (8, "enough")


def test_a_malformed_answer_is_a_fault_of_the_protocol() -> None:
    assert Malformed("no status").code is ErrorCode.PROTOCOL_ERROR
