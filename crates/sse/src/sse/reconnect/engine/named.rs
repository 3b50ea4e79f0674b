//! Enums whose values have names.

/// An enum, the names of its values in metrics and logs, and the list of them: a value cannot be
/// added to one and forgotten in another.
macro_rules! named {
    (
        $(#[$meta:meta])*
        pub enum $enum:ident {
            $($(#[doc = $doc:literal])+ $value:ident = $name:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $enum {
            $($(#[doc = $doc])+ $value,)+
        }

        impl $enum {
            /// All there are. A value's place in it is its number (`as usize`).
            pub const ALL: &'static [Self] = &[$(Self::$value),+];

            /// The name in metrics and logs.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)+
                }
            }
        }
    };
}
