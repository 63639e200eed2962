"""The settings of the room for people: `ui:` in headwater.yaml, `HEADWATER_UI__PORT` and so on."""

from pydantic import BaseModel, ConfigDict, Field

from pipeline.setting_kinds import ExpandedPath, HttpAddress, ListeningHost


class UiSettings(BaseModel):
    """Where the pages are served, whom they ask, and for how long somebody is signed in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: ListeningHost = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for all.")
    port: int = Field(8091, ge=0, le=65535, description="Port to listen on; 0: a free one.")
    api: HttpAddress = Field(
        "http://127.0.0.1:8090", pattern=r"^https?://", description="Address of the API that is asked."
    )
    users: ExpandedPath | None = Field(None, description="File of the users; users.yaml in the state folder.")
    session_hours: float = Field(12, gt=0, le=720, description="After so long everybody signs in again.")
    max_sessions: int = Field(1_000, ge=1, le=100_000, description="People signed in at a time.")
    behind_tls: bool = Field(False, description="People reach it by https only: cookies are sent nowhere else.")
