//! The Notify payload (RFC 7296 section 3.10) and the notifies of the extensions that are spoken here.

use crate::error::WireError;
use crate::wire::reader::{Reader, len8};

/// Numbers from here on are about status; below, they are errors.
const FIRST_STATUS: u16 = 16384;

macro_rules! notify_types {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// What a notify says. Numbers below 16384 are errors, the others are about status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum NotifyType {
            $($(#[$doc])* $name,)*
            /// Any other number.
            Other(u16),
        }

        impl From<u16> for NotifyType {
            fn from(number: u16) -> Self {
                match number {
                    $($number => NotifyType::$name,)*
                    other => NotifyType::Other(other),
                }
            }
        }

        impl From<NotifyType> for u16 {
            fn from(ty: NotifyType) -> u16 {
                match ty {
                    $(NotifyType::$name => $number,)*
                    NotifyType::Other(number) => number,
                }
            }
        }

        impl std::fmt::Display for NotifyType {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $(NotifyType::$name => f.write_str($text),)*
                    NotifyType::Other(number) => write!(f, "notify {number}"),
                }
            }
        }
    };
}

notify_types! {
    /// A critical payload was not understood; data: its type.
    UnsupportedCriticalPayload = 1, "UNSUPPORTED_CRITICAL_PAYLOAD";
    /// No IKE_SA has these SPIs.
    InvalidIkeSpi = 4, "INVALID_IKE_SPI";
    /// The major version is not spoken.
    InvalidMajorVersion = 5, "INVALID_MAJOR_VERSION";
    /// The message is malformed.
    InvalidSyntax = 7, "INVALID_SYNTAX";
    /// The message id is outside the window.
    InvalidMessageId = 9, "INVALID_MESSAGE_ID";
    /// ESP or AH arrived for an SPI that is not known.
    InvalidSpi = 11, "INVALID_SPI";
    /// No proposal was acceptable.
    NoProposalChosen = 14, "NO_PROPOSAL_CHOSEN";
    /// Another group is wanted; data: its number.
    InvalidKePayload = 17, "INVALID_KE_PAYLOAD";
    /// Authentication failed.
    AuthenticationFailed = 24, "AUTHENTICATION_FAILED";
    /// Only traffic selectors of one pair of addresses are accepted.
    SinglePairRequired = 34, "SINGLE_PAIR_REQUIRED";
    /// No further CHILD_SAs on this IKE_SA.
    NoAdditionalSas = 35, "NO_ADDITIONAL_SAS";
    /// The requested inner address cannot be given.
    InternalAddressFailure = 36, "INTERNAL_ADDRESS_FAILURE";
    /// A configuration request was expected.
    FailedCpRequired = 37, "FAILED_CP_REQUIRED";
    /// The traffic selectors are not acceptable.
    TsUnacceptable = 38, "TS_UNACCEPTABLE";
    /// ESP arrived with addresses outside its SA's selectors.
    InvalidSelectors = 39, "INVALID_SELECTORS";
    /// MOBIKE: these addresses are not acceptable (RFC 4555).
    UnacceptableAddresses = 40, "UNACCEPTABLE_ADDRESSES";
    /// MOBIKE: a NAT is there although NO_NATS_ALLOWED was sent (RFC 4555).
    UnexpectedNatDetected = 41, "UNEXPECTED_NAT_DETECTED";
    /// Not now; try again later.
    TemporaryFailure = 43, "TEMPORARY_FAILURE";
    /// The CHILD_SA that is to be rekeyed does not exist.
    ChildSaNotFound = 44, "CHILD_SA_NOT_FOUND";
    /// First contact since a restart: older SAs are gone.
    InitialContact = 16384, "INITIAL_CONTACT";
    /// How many messages may be outstanding.
    SetWindowSize = 16385, "SET_WINDOW_SIZE";
    /// The traffic selectors were narrowed though more would be possible.
    AdditionalTsPossible = 16386, "ADDITIONAL_TS_POSSIBLE";
    /// IPComp is supported.
    IpcompSupported = 16387, "IPCOMP_SUPPORTED";
    /// Hash of SPIs, source address and port.
    NatDetectionSourceIp = 16388, "NAT_DETECTION_SOURCE_IP";
    /// Hash of SPIs, destination address and port.
    NatDetectionDestinationIp = 16389, "NAT_DETECTION_DESTINATION_IP";
    /// To be repeated in a new IKE_SA_INIT request.
    Cookie = 16390, "COOKIE";
    /// Transport mode is wanted or accepted.
    UseTransportMode = 16391, "USE_TRANSPORT_MODE";
    /// Certificates may be sent by hash and URL.
    HttpCertLookupSupported = 16392, "HTTP_CERT_LOOKUP_SUPPORTED";
    /// Which SA the CREATE_CHILD_SA exchange rekeys.
    RekeySa = 16393, "REKEY_SA";
    /// No traffic flow confidentiality padding, please.
    EspTfcPaddingNotSupported = 16394, "ESP_TFC_PADDING_NOT_SUPPORTED";
    /// Fragments that are not first may go through the SA.
    NonFirstFragmentsAlso = 16395, "NON_FIRST_FRAGMENTS_ALSO";
    /// MOBIKE is supported (RFC 4555).
    MobikeSupported = 16396, "MOBIKE_SUPPORTED";
    /// MOBIKE: a further IPv4 address of the sender.
    AdditionalIp4Address = 16397, "ADDITIONAL_IP4_ADDRESS";
    /// MOBIKE: a further IPv6 address of the sender.
    AdditionalIp6Address = 16398, "ADDITIONAL_IP6_ADDRESS";
    /// MOBIKE: there are no further addresses any more.
    NoAdditionalAddresses = 16399, "NO_ADDITIONAL_ADDRESSES";
    /// MOBIKE: move the SAs to the addresses of this message.
    UpdateSaAddresses = 16400, "UPDATE_SA_ADDRESSES";
    /// MOBIKE: return routability, to be repeated in the response.
    Cookie2 = 16401, "COOKIE2";
    /// MOBIKE: the sender knows of no NAT and will accept none.
    NoNatsAllowed = 16402, "NO_NATS_ALLOWED";
    /// How many seconds the authentication holds (RFC 4478).
    AuthLifetime = 16403, "AUTH_LIFETIME";
    /// Several authentications are supported (RFC 4739).
    MultipleAuthSupported = 16404, "MULTIPLE_AUTH_SUPPORTED";
    /// A further authentication follows (RFC 4739).
    AnotherAuthFollows = 16405, "ANOTHER_AUTH_FOLLOWS";
    /// Being sent to another gateway is supported (RFC 5685).
    RedirectSupported = 16406, "REDIRECT_SUPPORTED";
    /// Go to this other gateway (RFC 5685).
    Redirect = 16407, "REDIRECT";
    /// Which gateway sent the client here (RFC 5685).
    RedirectedFrom = 16408, "REDIRECTED_FROM";
    /// The responder may authenticate by EAP alone (RFC 5998).
    EapOnlyAuthentication = 16417, "EAP_ONLY_AUTHENTICATION";
    /// An IKE_SA without a CHILD_SA is supported (RFC 6023).
    ChildlessIkev2Supported = 16418, "CHILDLESS_IKEV2_SUPPORTED";
    /// Quick crash detection token (RFC 6290).
    QuickCrashDetection = 16419, "QUICK_CRASH_DETECTION";
    /// IKE fragmentation is supported (RFC 7383).
    IkeFragmentationSupported = 16430, "IKEV2_FRAGMENTATION_SUPPORTED";
    /// Hash algorithms for digital signatures (RFC 7427).
    SignatureHashAlgorithms = 16431, "SIGNATURE_HASH_ALGORITHMS";
    /// Post-quantum pre-shared keys are supported (RFC 8784).
    UsePpk = 16435, "USE_PPK";
    /// Which post-quantum pre-shared key is used (RFC 8784).
    PpkIdentity = 16436, "PPK_IDENTITY";
    /// AUTH value without the post-quantum pre-shared key (RFC 8784).
    NoPpkAuth = 16437, "NO_PPK_AUTH";
    /// IKE_INTERMEDIATE is supported (RFC 9242).
    IntermediateExchangeSupported = 16438, "INTERMEDIATE_EXCHANGE_SUPPORTED";
    /// Multi-point SA: keys and algorithms for the whole group (draft-yamaya-ipsecme-mpsa).
    MpsaPut = 40960, "MPSA_PUT";
}

impl NotifyType {
    /// Whether it tells of an error, not of a status.
    pub fn is_error(self) -> bool {
        u16::from(self) < FIRST_STATUS
    }
}

/// A notify. `Debug` shows only how much data there is: it may be keys.
#[derive(Clone, PartialEq, Eq)]
pub struct Notify {
    /// Protocol of the SPI; zero when there is none.
    pub protocol: u8,
    /// The SPI it is about; mostly empty.
    pub spi: Vec<u8>,
    /// What it says.
    pub ty: NotifyType,
    /// What belongs to it.
    pub data: Vec<u8>,
}

impl std::fmt::Debug for Notify {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notify")
            .field("ty", &self.ty)
            .field("protocol", &self.protocol)
            .field("spi", &self.spi)
            .field("data_length", &self.data.len())
            .finish_non_exhaustive()
    }
}

impl Notify {
    /// A notify about the IKE_SA or the message itself.
    pub fn new(ty: NotifyType, data: Vec<u8>) -> Self {
        Notify { protocol: 0, spi: Vec::new(), ty, data }
    }

    /// A notify without data.
    pub fn status(ty: NotifyType) -> Self {
        Notify::new(ty, Vec::new())
    }

    /// A notify about the ESP SA with this SPI.
    pub fn about_esp(ty: NotifyType, spi: u32) -> Self {
        Notify { protocol: 3, spi: spi.to_be_bytes().to_vec(), ty, data: Vec::new() }
    }

    /// REKEY_SA for the ESP SA that has this SPI on the sender's inbound side.
    pub fn rekey_esp(spi: u32) -> Self {
        Notify::about_esp(NotifyType::RekeySa, spi)
    }

    /// INVALID_KE_PAYLOAD that asks for this group.
    pub fn invalid_ke(group: u16) -> Self {
        Notify::new(NotifyType::InvalidKePayload, group.to_be_bytes().to_vec())
    }

    /// SIGNATURE_HASH_ALGORITHMS with these IANA numbers (RFC 7427 section 4).
    pub fn signature_hash_algorithms(hashes: &[u16]) -> Self {
        let data = hashes.iter().flat_map(|hash| hash.to_be_bytes()).collect();
        Notify::new(NotifyType::SignatureHashAlgorithms, data)
    }

    /// ADDITIONAL_IP4_ADDRESS or ADDITIONAL_IP6_ADDRESS (RFC 4555 section 3.4).
    pub fn additional_address(address: std::net::IpAddr) -> Self {
        match address {
            std::net::IpAddr::V4(v4) => Notify::new(NotifyType::AdditionalIp4Address, v4.octets().to_vec()),
            std::net::IpAddr::V6(v6) => Notify::new(NotifyType::AdditionalIp6Address, v6.octets().to_vec()),
        }
    }

    /// The data as one number of 16 bits: the group of INVALID_KE_PAYLOAD.
    pub fn data_u16(&self) -> Option<u16> {
        self.data.as_slice().try_into().ok().map(u16::from_be_bytes)
    }

    /// The data as one number of 32 bits: the seconds of AUTH_LIFETIME.
    pub fn data_u32(&self) -> Option<u32> {
        self.data.as_slice().try_into().ok().map(u32::from_be_bytes)
    }

    /// The data as a list of numbers of 16 bits: SIGNATURE_HASH_ALGORITHMS.
    pub fn data_u16_list(&self) -> impl Iterator<Item = u16> {
        let (pairs, _) = self.data.as_chunks::<2>();
        pairs.iter().map(|pair| u16::from_be_bytes(*pair))
    }

    /// The SPI as that of an ESP SA.
    pub fn esp_spi(&self) -> Option<u32> {
        self.spi.as_slice().try_into().ok().map(u32::from_be_bytes)
    }

    /// The address of ADDITIONAL_IP4_ADDRESS or ADDITIONAL_IP6_ADDRESS.
    pub fn address(&self) -> Option<std::net::IpAddr> {
        let data = self.data.as_slice();
        if self.ty == NotifyType::AdditionalIp4Address {
            return <[u8; 4]>::try_from(data).ok().map(Into::into);
        }
        if self.ty == NotifyType::AdditionalIp6Address {
            return <[u8; 16]>::try_from(data).ok().map(Into::into);
        }
        None
    }

    /// Reads the payload's body.
    ///
    /// # Errors
    /// The body is shorter than its fixed part and the SPI.
    pub fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body, "a Notify payload");
        let protocol = reader.u8()?;
        let spi_size = usize::from(reader.u8()?);
        let ty = NotifyType::from(reader.u16()?);
        let spi = reader.take(spi_size)?.to_vec();
        Ok(Notify { protocol, spi, ty, data: reader.rest().to_vec() })
    }

    /// Writes the payload's body.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.protocol, len8(self.spi.len())]);
        out.extend_from_slice(&u16::from(self.ty).to_be_bytes());
        out.extend_from_slice(&self.spi);
        out.extend_from_slice(&self.data);
    }
}
