"""URLs of chat and SMS services (apprise's form, ``discord://id/token``): which are taken, how one is shown.

Pure. A service's URL is a secret as a whole, so it is shown by its schema alone. Whether the service can do
anything with it is asked of apprise itself; what it may reach is bounded where it runs (worker/confined.py).
"""

from __future__ import annotations

import re
from urllib.parse import unquote_plus, urlsplit

# Services on the internet that need no host of one's own, and the usual ones that do: such a host is checked
# when it is connected to.
DEFAULT_SCHEMAS = (
    "discord slack tgram msteams workflows gchat wxteams zulip mmost mmosts rocket rockets matrix matrixs"
    " ntfy ntfys gotify gotifys pover pbul pushed prowl bark barks signal signals line threema whatsapp"
    " revolt guilded flock ryver lark feishu dingtalk wecombot pagerduty opsgenie pagertree spike"
    " twilio vonage nexmo sns msgbird plivo clicksend sinch telnyx d7sms seven bulksms voipms"
)
# These act on the machine itself, or on its network without a connection: never, whatever is set.
_NEVER = """dbus glib kde qt gnome macosx windows syslog rsyslog blink1 deltachat growl aprs dapnet smpp
file files config http https"""
NEVER_SCHEMAS = frozenset(_NEVER.split())
# What may be asked in the query. A template is a file of ours or a further URL; others take checks away.
_PARAMETERS = """format overflow emojis footer footer_logo image avatar tts thread fields blocks
timestamp mode channel to from name priority sound topic preview silent batch markdown mdv region
account token secret key apikey sender source country unicode type tags user pass pw e2ee msgtype
webhook version v"""
PARAMETERS = frozenset(_PARAMETERS.split())
_SCHEMA = re.compile(r"([a-z0-9]{2,20})://.", re.IGNORECASE)
# apprise knows no fragments and splits at semicolons, too: a parameter behind "#?" is one to it.
_BETWEEN_PARAMETERS = re.compile(r"[?&;#]")


def schemas_of(text: str) -> frozenset[str]:
    """The schemas of a setting: separated by spaces. ValueError names one that may never be."""
    found = frozenset(text.lower().split())
    if never := sorted(found & NEVER_SCHEMAS):
        raise ValueError(f"{', '.join(never)}: would act on this machine itself")
    if odd := sorted(one for one in found if not re.fullmatch(r"[a-z0-9]{2,20}", one)):
        raise ValueError(f"{', '.join(odd)}: not a schema; write discord and not discord://")
    return found


def schema_of(target: str) -> str:
    """In lower case; empty when it has none."""
    found = _SCHEMA.match(target)
    return found[1].lower() if found else ""


def shown(target: str) -> str:
    """What may be told of it: ``discord://***``."""
    return f"{schema_of(target) or 'unknown'}://***"


def fault_of_service(target: str, schemas: frozenset[str]) -> str | None:
    """Why this target is not taken; None when it is well. Nothing of the target itself but names is in it."""
    schema = schema_of(target)
    if not schema or any(ord(character) <= 32 for character in target):
        return "needs a service's URL as apprise writes it, such as discord://webhook_id/token"
    if schema not in schemas or schema in NEVER_SCHEMAS:
        return f"{schema}:// is not among the services of this installation"
    try:
        urlsplit(target)
    except ValueError:
        return "not a URL"
    _, _, query = target.partition("?")
    for parameter in filter(None, _BETWEEN_PARAMETERS.split(query)):
        if unquote_plus(parameter.partition("=")[0]).lower() not in PARAMETERS:
            return "its query may only have these parameters: " + ", ".join(sorted(PARAMETERS))
    return None
