"""What all validated records have in common."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel

_Record = TypeVar("_Record", bound="Record")


class Record(BaseModel):
    """A validated record. Subclasses make it frozen and refuse unknown fields."""

    def replaced(self: _Record, **changes: Any) -> _Record:
        """A copy with other values in some fields, validated as a new record is.

        pydantic's ``model_copy(update=...)`` checks neither names nor values: a misspelt field would go unseen.

        Raises:
            ValidationError: there is no such field, or a value does not fit.
        """
        # Fields that were left out stay so: validators may treat what a user wrote in another way than a default.
        kept = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self).model_validate({**kept, **changes})
