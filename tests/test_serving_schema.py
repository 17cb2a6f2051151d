"""The interface against its own description: schemathesis invents requests, and finds nothing."""

import base64

import hypothesis
import pytest
from test_serving_server import model, scenes, serving  # noqa: F401

EXAMPLES = 60  # of each operation


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # schemathesis's own
def test_schemathesis_finds_nothing(model, scenes):  # noqa: F811
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed: pip install cores[dev]")
    from schemathesis.specs.openapi.checks import negative_data_rejection

    generated = schemathesis.GenerationMode
    picture, checked = scenes[0][0], []
    with serving(model) as (_, address):
        document = schemathesis.openapi.from_url(f"{address}/openapi.json")
        operations = [operation.ok() for operation in document.get_all_operations()]
        modes = {
            mode: operations if mode.is_positive else [one for one in operations if one.body] for mode in generated
        }
        for operation, mode in [(operation, mode) for mode, some in modes.items() for operation in some]:

            @hypothesis.settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def attack(case):
                as_json = case.media_type == "application/json"
                if case.meta.generation.mode.is_positive and isinstance(case.body, dict):
                    # no schema can say what a picture is: one in place of the letters that were invented
                    case.body["image"] = base64.b64encode(picture).decode() if as_json else picture
                answer = case.call(timeout=60)
                checked.append((case.path, answer.status_code))
                # a form has text alone: a number in the place of words is words again
                left_out = [] if as_json else [negative_data_rejection]
                case.validate_response(answer, excluded_checks=left_out)

            attack()
    paths = {path for path, _ in checked}
    assert paths == {"/v1/segment", "/v1/chat", "/healthz", "/readyz", "/metrics"}
    assert {("/v1/segment", 200), ("/v1/segment", 422), ("/v1/chat", 200)} <= set(checked)
