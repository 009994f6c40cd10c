"""A client on a keep-alive connection recognizes when an answer is complete."""

from bench.keep_alive import whole_answer

_ANSWER = b"HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\nServer: x\r\n\r\nabc"


def test_an_answer_is_complete_only_after_its_last_byte():
    for length in range(len(_ANSWER)):
        assert whole_answer(_ANSWER[:length]) is None
    assert whole_answer(_ANSWER) == 404


def test_an_answer_without_a_length_has_no_body():
    assert whole_answer(b"HTTP/1.1 204 No Content\r\n\r\n") == 204
