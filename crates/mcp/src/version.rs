//! Protocol versions, and what each leg of a session settled on.
//!
//! MCP specification, Lifecycle, "Version Negotiation". Versions are values of an ordered enum:
//! nothing compares strings, and nothing is guessed but the one default that the specification
//! gives (an absent `MCP-Protocol-Version` means 2025-03-26 where nothing else tells).

use std::fmt;
use std::str::FromStr;

use crate::build;
use crate::message::{Message, RequestId, json_string};

/// A version of the protocol that Shadowcat knows, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(non_camel_case_types, reason = "the names are dates")]
pub enum ProtocolVersion {
    /// 2024-11-05
    V2024_11_05,
    /// 2025-03-26
    V2025_03_26,
    /// 2025-06-18
    V2025_06_18,
    /// 2025-11-25
    V2025_11_25,
    /// 2026-07-28
    V2026_07_28,
}

/// Which of the two families a version belongs to; they cannot talk to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Era {
    /// A handshake and a session: up to 2025-11-25.
    Legacy,
    /// Metadata in every request, no session: from 2026-07-28.
    Modern,
}

impl ProtocolVersion {
    /// All versions, oldest first.
    pub const ALL: [Self; 5] = [
        Self::V2024_11_05,
        Self::V2025_03_26,
        Self::V2025_06_18,
        Self::V2025_11_25,
        Self::V2026_07_28,
    ];

    /// The newest version of the legacy era.
    pub const NEWEST_LEGACY: Self = Self::V2025_11_25;

    /// What an absent `MCP-Protocol-Version` header means where nothing else tells.
    pub const ASSUMED: Self = Self::V2025_03_26;

    /// The version on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// Its era.
    #[must_use]
    pub fn era(self) -> Era {
        if self >= Self::V2026_07_28 {
            Era::Modern
        } else {
            Era::Legacy
        }
    }

    /// Whether a client of this version sends `MCP-Protocol-Version` after the handshake.
    #[must_use]
    pub fn has_version_header(self) -> bool {
        self >= Self::V2025_06_18
    }

    /// Whether event streams of this version open with a priming event (2025-11-25, "Resumability
    /// and Redelivery").
    #[must_use]
    pub fn has_priming_events(self) -> bool {
        self == Self::V2025_11_25
    }

    /// Whether messages may come in batches: in 2025-03-26 only.
    #[must_use]
    pub fn has_batches(self) -> bool {
        self == Self::V2025_03_26
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No version that Shadowcat knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownVersion(pub String);

impl fmt::Display for UnknownVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown protocol version {:?}", self.0)
    }
}

impl std::error::Error for UnknownVersion {}

impl FromStr for ProtocolVersion {
    type Err = UnknownVersion;

    fn from_str(text: &str) -> Result<Self, UnknownVersion> {
        let known = Self::ALL
            .into_iter()
            .find(|version| version.as_str() == text);
        known.ok_or_else(|| UnknownVersion(text.to_owned()))
    }
}

/// Which versions the operator accepts, on either leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VersionPolicy {
    /// The lowest.
    pub min: Option<ProtocolVersion>,
    /// The only one.
    pub pin: Option<ProtocolVersion>,
}

impl VersionPolicy {
    /// Whether a version may be used.
    #[must_use]
    pub fn allows(&self, version: ProtocolVersion) -> bool {
        self.min.is_none_or(|min| version >= min) && self.pin.is_none_or(|pin| version == pin)
    }

    /// The option that refuses versions of an era, as it is written, if one does.
    fn option(&self, era: Era) -> Option<String> {
        let mut own = ProtocolVersion::ALL.into_iter().filter(|v| v.era() == era);
        if own.all(|version| self.allows(version)) {
            return None;
        }
        let pin = self.pin.map(|version| format!("--pin {version}"));
        pin.or_else(|| self.min.map(|version| format!("--min-version {version}")))
    }

    /// The versions of an era that may be used, newest first.
    #[must_use]
    pub fn supported(&self, era: Era) -> Vec<ProtocolVersion> {
        let all = ProtocolVersion::ALL.into_iter().rev();
        all.filter(|version| version.era() == era && self.allows(*version))
            .collect()
    }

    /// What a refusal of a version names: the versions of its era, or, where none of them may be
    /// used, those of the other, so that a peer of both eras knows where to go.
    #[must_use]
    pub fn served(&self, era: Era) -> Served {
        let other = match era {
            Era::Legacy => Era::Modern,
            Era::Modern => Era::Legacy,
        };
        let own = self.supported(era);
        let versions = if own.is_empty() {
            self.supported(other)
        } else {
            own
        };
        let option = self.option(era);
        Served { versions, option }
    }
}

/// What a refusal of a version offers in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Newest first.
    pub versions: Vec<ProtocolVersion>,
    /// The operator's option that leaves no more, if there is one.
    pub option: Option<String>,
}

impl Served {
    /// `{"supported": [...], "requested": ...}`.
    pub(crate) fn data(&self, requested: &str) -> String {
        version_data(
            self.versions.iter().map(|version| version.as_str()),
            requested,
        )
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self
            .versions
            .iter()
            .map(|version| version.as_str())
            .collect();
        f.write_str(&names.join(", "))?;
        match &self.option {
            Some(option) => write!(f, " ({option})"),
            None => Ok(()),
        }
    }
}

/// What a legacy leg has settled on. Each step may be taken once, in this order:
///
/// ```text
/// Uninitialized --request--> Requested --negotiate--> Negotiated --validate--> Validated
/// ```
///
/// Any other step is an error: there is no second handshake inside a session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LegVersion {
    /// Nothing was said.
    #[default]
    Uninitialized,
    /// The client asked for a version.
    Requested {
        /// As the client spelt it.
        requested: String,
    },
    /// The server answered with a version that is known and allowed.
    Negotiated {
        /// As the client spelt it.
        requested: String,
        /// The server's choice.
        negotiated: ProtocolVersion,
    },
    /// A later message confirmed the version by its transport channel (the header, or the pipe
    /// itself).
    Validated {
        /// The server's choice.
        negotiated: ProtocolVersion,
    },
}

/// Why a step of a handshake is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionError {
    /// A step out of order.
    OutOfOrder {
        /// The step.
        step: &'static str,
        /// The state it met.
        state: &'static str,
    },
    /// A version that is unknown, of the wrong era, or not allowed by the operator.
    Refused {
        /// What the client asked for.
        requested: String,
        /// What the server answered.
        answered: String,
        /// What would have been accepted.
        supported: Served,
    },
    /// A handshake message without what it must hold.
    Malformed(&'static str),
}

impl LegVersion {
    fn name(&self) -> &'static str {
        match self {
            Self::Uninitialized => "uninitialized",
            Self::Requested { .. } => "requested",
            Self::Negotiated { .. } => "negotiated",
            Self::Validated { .. } => "validated",
        }
    }

    /// The client sent `initialize` with this version.
    ///
    /// # Errors
    /// [`VersionError::OutOfOrder`] when there was an `initialize` before.
    pub fn request(&mut self, version: &str) -> Result<(), VersionError> {
        if *self != Self::Uninitialized {
            let state = self.name();
            return Err(VersionError::OutOfOrder {
                step: "initialize",
                state,
            });
        }
        *self = Self::Requested {
            requested: version.to_owned(),
        };
        Ok(())
    }

    /// The server answered with this version. A version that the client did not ask for is the
    /// server's right, if it is known and the policy allows it; what the client will not take it
    /// refuses itself.
    ///
    /// # Errors
    /// [`VersionError::Refused`] or [`VersionError::OutOfOrder`]; the state stays.
    pub fn negotiate(
        &mut self,
        answered: &str,
        policy: &VersionPolicy,
    ) -> Result<ProtocolVersion, VersionError> {
        let Self::Requested { requested } = self else {
            let state = self.name();
            return Err(VersionError::OutOfOrder {
                step: "the server's answer",
                state,
            });
        };
        let known = answered.parse().ok().filter(|version: &ProtocolVersion| {
            version.era() == Era::Legacy && policy.allows(*version)
        });
        let Some(negotiated) = known else {
            return Err(VersionError::Refused {
                requested: requested.clone(),
                answered: answered.to_owned(),
                supported: policy.served(Era::Legacy),
            });
        };
        *self = Self::Negotiated {
            requested: std::mem::take(requested),
            negotiated,
        };
        Ok(negotiated)
    }

    /// A message after the handshake named this version by its transport (`None`: it named none).
    ///
    /// # Errors
    /// [`VersionError::Refused`] when it differs from the negotiated one,
    /// [`VersionError::OutOfOrder`] before there is one.
    pub fn validate(&mut self, named: Option<ProtocolVersion>) -> Result<(), VersionError> {
        let Some(negotiated) = self.negotiated() else {
            let state = self.name();
            return Err(VersionError::OutOfOrder {
                step: "a request",
                state,
            });
        };
        if let Some(named) = named.filter(|named| *named != negotiated) {
            return Err(VersionError::Refused {
                requested: named.to_string(),
                answered: negotiated.to_string(),
                supported: Served {
                    versions: vec![negotiated],
                    option: None,
                },
            });
        }
        *self = Self::Validated { negotiated };
        Ok(())
    }

    /// The version settled on, once there is one.
    #[must_use]
    pub fn negotiated(&self) -> Option<ProtocolVersion> {
        match self {
            Self::Negotiated { negotiated, .. } | Self::Validated { negotiated } => {
                Some(*negotiated)
            }
            Self::Uninitialized | Self::Requested { .. } => None,
        }
    }
}

impl fmt::Display for VersionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfOrder { step, state } => {
                write!(f, "{step} does not fit a session whose version is {state}")
            }
            Self::Refused {
                requested,
                answered,
                supported,
            } => write!(
                f,
                "the client asked for protocol version {requested}, the server answered \
                 {answered}; accepted here: {supported}"
            ),
            Self::Malformed(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for VersionError {}

impl VersionError {
    /// The error response that the client gets.
    #[must_use]
    pub fn to_response(&self, id: &RequestId) -> Message {
        match self {
            Self::Refused {
                requested,
                supported,
                ..
            } => {
                let data = supported.data(requested);
                build::error(Some(id), -32602, &self.to_string(), Some(&data))
            }
            Self::OutOfOrder { .. } => build::error(Some(id), -32600, &self.to_string(), None),
            Self::Malformed(_) => build::error(Some(id), -32602, &self.to_string(), None),
        }
    }
}

/// `{"supported": [...], "requested": ...}`.
pub(crate) fn version_data<'a>(
    supported: impl IntoIterator<Item = &'a str>,
    requested: &str,
) -> String {
    let supported: Vec<_> = supported.into_iter().map(json_string).collect();
    format!(
        r#"{{"supported":[{}],"requested":{}}}"#,
        supported.join(","),
        json_string(requested)
    )
}

/// -32022 for a modern client whose server speaks only sessions.
#[must_use]
pub fn modern_client_legacy_server(id: &RequestId, requested: &str, server: &str) -> Message {
    let text = format!(
        "the client speaks {requested}, the server only {server}: these cannot talk to each other \
         yet; use a client that speaks {server}"
    );
    build::error(
        Some(id),
        -32022,
        &text,
        Some(&version_data([server], requested)),
    )
}

/// -32022 for a modern client whose server refused `server/discover` and was not asked for its
/// version; `served` are those that it may speak.
#[must_use]
pub fn modern_client_refused(id: &RequestId, requested: &str, served: &Served) -> Message {
    let text = format!(
        "the client speaks {requested}, the server refused server/discover as servers before that \
         version do: these cannot talk to each other yet; use a client that begins with initialize \
         and speaks one of {served}"
    );
    build::error(Some(id), -32022, &text, Some(&served.data(requested)))
}

/// -32602 for a legacy client whose server speaks only 2026-07-28 or later.
#[must_use]
pub fn legacy_client_modern_server(id: &RequestId, requested: &str, server: &[String]) -> Message {
    let text = format!(
        "the client asked for {requested}, the server speaks only {}: these cannot talk to each \
         other yet; use a client that speaks one of these",
        server.join(", ")
    );
    let data = version_data(server.iter().map(String::as_str), requested);
    build::error(Some(id), -32602, &text, Some(&data))
}

#[cfg(test)]
mod tests;
