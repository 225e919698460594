"""Validators that say what is allowed."""

from dataclasses import dataclass
from typing import Any

from pydantic import GetJsonSchemaHandler, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError


@dataclass(frozen=True)
class Allowed(WrapValidator):
    """A validator that has the allowed values in words, and what the value means, for forms and `--help`."""

    allowed: str = ""
    meaning: str = ""  # empty if the allowed values say it

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:  # noqa: ANN401
        shown = handler(schema)
        allowed = "" if shown.get("type") == "boolean" else f"Give {self.allowed}."
        return shown | {"description": f"{self.meaning} {allowed}".strip()}


def allow(allowed: str, meaning: str = "") -> Allowed:
    """Return a validator whose error names the value and what is allowed: `0 is refused: give 1 to 500`."""

    def check(value: object, validate: ValidatorFunctionWrapHandler) -> object:
        refusal = PydanticCustomError(
            "refused", "{value} is refused: give {allowed}", {"value": repr(value), "allowed": allowed}
        )
        try:
            given = validate(value)
        except ValidationError:
            raise refusal from None
        if type(given) is int and isinstance(value, bool):
            raise refusal
        return given

    return Allowed(check, allowed=allowed, meaning=meaning)
