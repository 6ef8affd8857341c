# SPDX-License-Identifier: Apache-2.0
"""Which column means what: guessed by its header in several languages, or as a person says.

A guess is shown before anything is issued. A name that could mean two things is nobody's: a wrong column
is worse than a question.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

NAME: Final = "recipient.name"
EMAIL: Final = "recipient.email"
LOCALE: Final = "recipient.locale"
ISSUED_ON: Final = "issued_on"
EXPIRES_ON: Final = "expires_on"
EXTERNAL_ID: Final = "external_id"
FIXED_TARGETS: Final = (NAME, EMAIL, LOCALE, ISSUED_ON, EXPIRES_ON, EXTERNAL_ID)
REQUIRED_TARGETS: Final = (NAME, EMAIL)
FIELDS: Final = "fields."

# Compared without case, accents, blanks and punctuation. English, German, Spanish, French, Italian,
# Portuguese, Dutch, Polish, Arabic.
_NAMES: Final[Mapping[str, str]] = {
    NAME: """
        full name|name|recipient|recipient name|student|student name|graduate|graduate name|participant|
        participant name|learner|learner name|holder|attendee|vollständiger name|vor und nachname|
        teilnehmer|teilnehmerin|teilnehmername|absolvent|absolventin|nombre|nombre completo|
        nombre y apellidos|alumno|alumna|estudiante|participante|nom|nom complet|nom et prénom|
        prénom et nom|étudiant|étudiante|nome|nome completo|nome e cognome|studente|aluno|volledige naam|
        naam|deelnemer|imię i nazwisko|الاسم|الاسم الكامل|اسم الطالب
    """,
    EMAIL: """
        email|mail|email address|mail address|recipient email|student email|adresse mail|email adresse|
        mailadresse|correo|correo electrónico|dirección de correo|courriel|adresse email|adresse de courriel|
        adresse électronique|indirizzo email|posta elettronica|endereço de email|emailadres|adres email|
        البريد الإلكتروني|البريد
    """,
    LOCALE: "locale|language|sprache|idioma|langue|lingua|língua|taal|język|اللغة",
    ISSUED_ON: """
        issued|issued on|issue date|date issued|date of issue|ausgestellt|ausgestellt am|ausstellungsdatum|
        fecha de emisión|emitido|date de délivrance|date d'émission|délivré le|data di emissione|
        data de emissão|datum van uitgifte|data wydania|تاريخ الإصدار
    """,
    EXPIRES_ON: """
        expires|expires on|expiry|expiry date|expiration date|valid until|gültig bis|ablaufdatum|
        fecha de caducidad|válido hasta|date d'expiration|valable jusqu'au|data di scadenza|validade|
        geldig tot|ważny do|تاريخ الانتهاء
    """,
    EXTERNAL_ID: "external id|reference|your id|record id|referenz|referencia|référence|riferimento",
    "fields.course": """
        course|course name|course title|programme|program|subject|module|kurs|kursname|lehrgang|studiengang|
        curso|nombre del curso|asignatura|cours|formation|intitulé|corso|disciplina|cursus|opleiding|
        kierunek|الدورة|المقرر|اسم الدورة
    """,
    "fields.grade": """
        grade|result|mark|score|classification|note|abschlussnote|ergebnis|bewertung|nota|calificación|
        mention|résultat|voto|cijfer|resultaat|ocena|التقدير|الدرجة
    """,
    "fields.completed_on": """
        completed|completed on|completion date|date completed|date of completion|graduation date|
        abgeschlossen|abgeschlossen am|abschlussdatum|fecha de finalización|finalizado|
        date d'achèvement|date de fin|terminé le|achevé le|data di completamento|data de conclusão|
        afgerond op|data ukończenia|تاريخ الإتمام
    """,
    "fields.student_no": """
        student no|student number|student id|student nr|matriculation number|matrikelnummer|matrikelnr|
        matrícula|número de estudiante|numéro étudiant|numéro d'étudiant|matricola|número do aluno|
        studentnummer|numer albumu|رقم الطالب
    """,
}


class ColumnUnknown(ValueError):
    """A mapping names a field or a column that does not exist."""


def targets_of(fields: Iterable[str]) -> tuple[str, ...]:
    """Return everything a column may mean for a template with these fields."""
    return (*FIXED_TARGETS, *(FIELDS + name for name in fields))


def guess(header: Sequence[str], targets: Sequence[str], labels: Mapping[str, str]) -> dict[str, str]:
    """Return target → column for every header that is recognised.

    Args:
        header: the columns' names.
        targets: see `targets_of`.
        labels: what a template's form calls its fields, by target.
    """
    wanted = {
        _plain(word): target
        for target in targets
        for word in (target, target.removeprefix(FIELDS), labels.get(target, ""), *_words(target))
        if word
    }
    found: dict[str, list[str]] = {}
    for column in header:
        target = wanted.get(_plain(column))
        if column and target is not None:
            found.setdefault(target, []).append(column)
    return {target: columns[0] for target, columns in found.items() if len(columns) == 1}


def named(pairs: Sequence[str], header: Sequence[str], targets: Sequence[str]) -> dict[str, str]:
    """Return target → column as a person wrote it: `recipient.name=Teilnehmer`, `course=Kurs`.

    Raises:
        ColumnUnknown: with what there is instead.
    """
    columns = {column.casefold(): column for column in header if column}
    result: dict[str, str] = {}
    for pair in pairs:
        target, equals, column = (part.strip() for part in pair.partition("="))
        if not equals or not target or not column:
            raise ColumnUnknown(f'"{pair[:80]}" is not field=column')
        full = target if target in targets else FIELDS + target
        if full not in targets:
            raise ColumnUnknown(f'there is no field "{target[:60]}"; there are {", ".join(targets)}')
        if column.casefold() not in columns:
            known = ", ".join(f'"{name[:40]}"' for name in header if name)
            raise ColumnUnknown(f'the file has no column "{column[:60]}"; it has {known}')
        result[full] = columns[column.casefold()]
    return result


def _words(target: str) -> list[str]:
    return [word.strip() for word in _NAMES.get(target, "").split("|") if word.strip()]


def _plain(text: str) -> str:
    """Return letters and digits only, without accents: "E-Mail Address" and "e-mail-address" are one."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return re.sub(r"[\W_]+", "", "".join(sign for sign in decomposed if not unicodedata.combining(sign)))
