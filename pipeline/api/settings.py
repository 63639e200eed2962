"""The settings of the API: `api:` in headwater.yaml, `HEADWATER_API__PORT` and so on."""

from pydantic import BaseModel, ConfigDict, Field

from pipeline.setting_kinds import ExpandedPath, ListeningHost


class ApiSettings(BaseModel):
    """Where the API listens, whom it answers, and what it keeps."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: ListeningHost = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for all.")
    port: int = Field(8090, ge=0, le=65535, description="Port to listen on; 0: a free one.")
    tokens: ExpandedPath | None = Field(None, description="File of the tokens; tokens.yaml in the state folder.")
    recent_events: int = Field(20, ge=0, le=100, description="Recent events kept of each identifier.")
    recent_days: int = Field(30, ge=1, le=3_650, description="How far back a new read model looks for events.")
    max_streams: int = Field(10_000, ge=0, le=100_000, description="Streams at a time.")
    max_connections: int = Field(12_000, ge=1, le=200_000, description="Connections at a time, streams among them.")
