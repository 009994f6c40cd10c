"""A good signature is accepted, a bad signature gives a fault, and no header raises an error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.signature import SignatureFault, SignedForm, sign, verify

NOW_S = 1_700_000_000
SECRET = b"whsec_test_key_1"

bodies = st.binary(max_size=200)
secrets = st.binary(min_size=1, max_size=40)
forms = st.sampled_from([SignedForm.BODY, SignedForm.TIMESTAMPED])
headers = st.one_of(
    st.none(),
    st.text(),
    # These headers are nearly valid: they have the right parts in any sequence, and digits of any
    # script.
    st.lists(
        st.one_of(
            st.sampled_from(["t=", "v1=", "v0=", ",", "=", " ", "t=1", f"t={NOW_S}", "a" * 64]),
            st.characters(categories=["Nd", "Cs", "Cc"]),
        )
    ).map("".join),
)


def faults_of(header, body=b"{}", *, form=SignedForm.EITHER, now_s=NOW_S, known=(SECRET,)):
    return verify(header, body, secrets=known, now_s=now_s, form=form)


@given(headers, bodies, st.lists(secrets), st.sampled_from(SignedForm))
def test_no_header_raises_an_error(header, body, known, form):
    fault = verify(header, body, secrets=known, now_s=NOW_S, form=form)
    assert isinstance(fault, SignatureFault)


@given(bodies, secrets, st.integers(0, 10**12), forms, st.integers(-300, 300))
def test_a_signature_of_the_function_sign_is_accepted_within_the_tolerance(
    body, secret, at_s, form, age_s
):
    header = sign(body, secret, at_s, form)
    for accepted in (form, SignedForm.EITHER):
        fault = verify(header, body, secrets=[secret], now_s=at_s + age_s, form=accepted)
        assert fault is None


@given(bodies, bodies, forms)
def test_a_signature_of_a_different_body_is_a_mismatch(body, other, form):
    if body != other:
        assert faults_of(sign(body, SECRET, NOW_S, form), other) is SignatureFault.MISMATCH


@given(bodies, st.integers(0, 10**12))
def test_a_signature_in_a_form_that_is_not_accepted_is_a_mismatch(body, at_s):
    for made, asked in [
        (SignedForm.BODY, SignedForm.TIMESTAMPED),
        (SignedForm.TIMESTAMPED, SignedForm.BODY),
    ]:
        header = sign(body, SECRET, at_s, made)
        assert faults_of(header, body, form=asked, now_s=at_s) is SignatureFault.MISMATCH


@pytest.mark.parametrize("header", [None, ""])
def test_an_absent_header_is_reported_as_missing(header):
    assert faults_of(header) is SignatureFault.MISSING


@pytest.mark.parametrize(
    "header",
    [
        " ",
        "v1=" + "0" * 64,
        f"t={NOW_S}",
        f"t={NOW_S},v1=",
        f"t={NOW_S},v1={'0' * 63}",
        f"t={NOW_S},v1={'g' * 64}",
        f"t={NOW_S},t={NOW_S},v1={'0' * 64}",
        f"t=-1,v1={'0' * 64}",
        f"t=1.5,v1={'0' * 64}",
        f"t=\uff11\uff12,v1={'0' * 64}",
        f"t={'9' * 16},v1={'0' * 64}",
        f"t={NOW_S},v1={'0' * 64}," + "x=1," * 1100,
    ],
)
def test_a_header_that_does_not_have_the_expected_shape_is_malformed(header):
    assert faults_of(header) is SignatureFault.MALFORMED


@pytest.mark.parametrize("age_s", [-301, 301, 10**9])
def test_a_time_that_is_too_far_in_the_past_or_in_the_future_is_refused(age_s):
    header = sign(b"{}", SECRET, NOW_S)
    assert faults_of(header, now_s=NOW_S + age_s) is SignatureFault.OUT_OF_TOLERANCE


def test_only_the_holder_of_a_secret_learns_that_the_time_is_wrong():
    header = sign(b"{}", b"whsec_test_key_other", NOW_S - 10_000)
    assert faults_of(header) is SignatureFault.MISMATCH


def test_any_of_several_secrets_may_match_any_of_several_digests():
    right, wrong = sign(b"{}", SECRET, NOW_S).partition(",")[2], "v1=" + "0" * 64
    header = f"t={NOW_S},{wrong},{right}"
    assert faults_of(header, known=[b"whsec_test_key_old", SECRET]) is None
    assert faults_of(header, known=[b"whsec_test_key_old"]) is SignatureFault.MISMATCH


def test_unknown_fields_and_spaces_and_upper_case_digits_are_accepted():
    digest = sign(b"{}", SECRET, NOW_S).rpartition("=")[2]
    assert faults_of(f"v1={digest.upper()} , v0=x, t={NOW_S}") is None


def test_if_no_secret_is_known_no_signature_is_accepted():
    assert faults_of(sign(b"{}", b"", NOW_S), known=()) is SignatureFault.MISMATCH


@given(bodies, st.integers(1, 10**9), st.integers(-(10**6), 10**6))
def test_a_signed_time_that_was_changed_is_a_mismatch_in_every_form(body, at_s, shift_s):
    """The digest of a time and a body matches no other time, whichever form the check accepts."""
    header = sign(body, SECRET, at_s, SignedForm.TIMESTAMPED)
    moved = header.replace(f"t={at_s}", f"t={abs(at_s + shift_s)}")
    if moved != header:
        for form in SignedForm:
            assert faults_of(moved, body, form=form, now_s=at_s) is SignatureFault.MISMATCH


@given(bodies, forms)
def test_a_signature_with_a_retired_secret_is_a_mismatch(body, form):
    header = sign(body, b"whsec_retired", NOW_S, form)
    assert faults_of(header, body, known=[b"whsec_retired", SECRET]) is None
    assert faults_of(header, body, known=[SECRET]) is SignatureFault.MISMATCH


@given(bodies, forms, st.integers(301, 10**6))
def test_a_delivery_that_is_replayed_after_the_tolerance_is_refused(body, form, later_s):
    header = sign(body, SECRET, NOW_S, form)
    assert faults_of(header, body, now_s=NOW_S + 300) is None
    assert faults_of(header, body, now_s=NOW_S + later_s) is SignatureFault.OUT_OF_TOLERANCE
