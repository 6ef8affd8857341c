# SPDX-License-Identifier: Apache-2.0
"""Which column is which: guessed in several languages, or as a person says."""

from __future__ import annotations

import re

import pytest

from conferral.adapters import design_store
from conferral.domain import column_names
from conferral.domain.column_names import ColumnUnknown, guess, named, targets_of

FIELDS = [field.id for field in design_store.fields_of("diploma")]
TARGETS = targets_of(FIELDS)
LABELS = {f"fields.{field.id}": field.label for field in design_store.fields_of("diploma")}


@pytest.mark.parametrize(
    "header",
    [
        ("Full name", "E-mail", "Course", "Grade", "Completed on", "Student no"),
        ("FULL_NAME", "Email Address", "Course Title", "Result", "Completion date", "Student ID"),
        ("Vor- und Nachname", "E-Mail-Adresse", "Kurs", "Note", "Abgeschlossen am", "Matrikelnummer"),
        ("Nombre completo", "Correo electrónico", "Curso", "Nota", "Fecha de finalización", "Matrícula"),
        ("Nom complet", "Courriel", "Formation", "Mention", "Date d'achèvement", "Numéro étudiant"),
        ("الاسم الكامل", "البريد الإلكتروني", "الدورة", "التقدير", "تاريخ الإتمام", "رقم الطالب"),
        ("recipient.name", "recipient.email", "fields.course", "grade", "completed_on", "student_no"),
    ],
)
def test_headers_are_recognised_in_several_languages(header: tuple[str, ...]) -> None:
    """A registrar's own export needs no mapping."""
    meant = (
        "recipient.name", "recipient.email", "fields.course", "fields.grade", "fields.completed_on",
        "fields.student_no",
    )  # fmt: skip
    assert guess(header, TARGETS, LABELS) == dict(zip(meant, header, strict=True))


def test_two_columns_with_one_meaning_are_nobodys() -> None:
    """A wrong guess is worse than a question."""
    found = guess(("Name", "Student name", "E-mail"), TARGETS, LABELS)
    assert found == {"recipient.email": "E-mail"}


def test_every_name_is_used_once() -> None:
    """No word of any language means two things."""
    meanings: dict[str, set[str]] = {}
    for target in column_names._NAMES:
        for word in column_names._words(target):
            meanings.setdefault(column_names._plain(word), set()).add(target)
    assert {word: targets for word, targets in meanings.items() if len(targets) > 1} == {}


def test_a_person_may_name_columns_without_regard_to_case_and_leave_out_fields() -> None:
    """`course=kurs` is what somebody types."""
    assert named(["course=kurs", "recipient.name = Wer "], ("Kurs", "Wer"), TARGETS) == {
        "fields.course": "Kurs",
        "recipient.name": "Wer",
    }


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ("course", "is not field=column"),
        ("=Kurs", "is not field=column"),
        ("colour=Kurs", "there are recipient.name"),
        ("course=Fach", 'it has "Kurs", "Wer"'),
    ],
)
def test_a_mapping_that_names_nothing_is_refused_with_what_there_is(pair: str, says: str) -> None:
    """The message holds the answer."""
    with pytest.raises(ColumnUnknown, match=re.escape(says)):
        named([pair], ("Kurs", "Wer"), TARGETS)
