//! The Vendor ID payload (RFC 7296 section 3.12).

/// The octets by which a sender says what it is or can do; any octets are allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VendorId {
    /// The octets.
    pub data: Vec<u8>,
}

/// Announces multi-point SA in both IKE_SA_INIT messages (draft-yamaya-ipsecme-mpsa, section 3.2.1).
pub const MULTI_POINT_SA: &[u8] = b"multi-point SA";

impl VendorId {
    /// The vendor id of multi-point SA.
    pub fn multi_point_sa() -> Self {
        VendorId { data: MULTI_POINT_SA.to_vec() }
    }

    /// Whether this is the vendor id of multi-point SA.
    pub fn is_multi_point_sa(&self) -> bool {
        self.data == MULTI_POINT_SA
    }

    /// Reads the payload's body.
    pub fn parse(body: &[u8]) -> Self {
        VendorId { data: body.to_vec() }
    }

    /// Writes the payload's body.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.data);
    }
}
