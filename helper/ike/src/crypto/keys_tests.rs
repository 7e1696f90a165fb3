//! Vectors of NIST's validation program for the IKEv2 key derivation function (SHA-256).

use super::*;
use crate::crypto::Integ;

const NI: &str = "3651fef5c9c35e93";
const NR: &str = "c09a8b90a3f04d59";
const SPI_I: [u8; 8] = [0x8e, 0x5c, 0x3a, 0xe5, 0x07, 0x22, 0x16, 0x84];
const SPI_R: [u8; 8] = [0xb1, 0xf2, 0x01, 0xbb, 0x15, 0x5c, 0x3a, 0xcd];
const G_IR: &str = "\
        d084a30166a50fb7325c3960874a839449ef9741c2f4f947d0201dd8c1269273d79509f37e3ca3eb4fa2fe2a\
        28254e289cd3f34dad4eb4df1a07685a4b8a94fa61e2491f7598b3ce65547ff133b3f63d1ac4175eaa695033\
        f3cedb026a6873a36455172a8540b8a5d23a0143bed0390ee49b168269d75fffee9fb62be965993c";
const G_IR_NEW: &str = "\
        52f00ab174c25d5b7139ae5ff4e8e9eddee5992d2e36adf8a559ffd90dab1442e4fbe429d320c0f33552a17d\
        1557fa41ea70e8fb916c4fa27ed52b5f8ebd8461afa78f1159159a64055ac5f6319e29c28eae58cbc6847770\
        f32c3fed1d04750484f854790f95e9ec01bc5bc461f24966462e359511329305038e94deb6dd42c2";
const DKM: &str = "\
        462b9dd525d4fd71169174272779e704baf62c6231779ae9efe8c58b21916b42010164af2111ebd762f6916c\
        a9a6f0ee05c8b320e4ee27705521de2589adea1878f1a551738af7c88dc4f0bb0c096a3f7d1f1a670fc79f49\
        f678d60d665bb3710c8657f03ba9f62b9a818d7a228968c506e237ae9502aa6db395c61ea6a3e79504f86b73\
        68bfb5423df79e48809bbccd49fd826d024f63d7c2a5566400a12e736aa034510428f5ea008fe2fc16886fa3\
        88274ea6c2b4fcfc6141bf04f8207ef8afc224ea1059cb220dc0b23ac0e4ccda495a4e131b1d56e223aba5a4\
        8e8ed1f5";
const DKM_CHILD: &str = "\
        23647677e7d403fa1e3006f19840aee18ad9fecc4215814c4131bdeba98433d8b0e31bfbbddf822abcce5e06\
        486aa388022b75e27e1e68aa5983028b65282c730c5d49ef7606770376cfdec41f7cc435";
const DKM_CHILD_DH: &str = "\
        6a919387a5fa2835fe8a8237e4a14845bd2b9930db87eff7adf268f62186004902dba9aa942d0259a0edc412\
        0b932a503865b57ba8fb88117ef5df7b26799cd8ba37aa5438108cb1a4fe117907c9d0597b708c3f11151fef\
        d624d2317202b7c8";
const SKEYSEED_REKEY: &str = "90722c42bd849e9b72d240fc254174270fa8295de6f0338dafc303a9ec104f12";

fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

fn with_inputs<T>(then: impl FnOnce(&KeyInputs<'_>) -> T) -> T {
    then(&KeyInputs { nonce_i: &unhex(NI), nonce_r: &unhex(NR), spi_i: SPI_I, spi_r: SPI_R })
}

#[test]
fn the_keys_of_the_ike_sa_are_cut_in_the_order_of_rfc_7296() {
    let cipher = IkeCipher::Aes256Cbc(Integ::HmacSha2_256_128);
    let keys =
        with_inputs(|inputs| IkeKeys::initial(Prf::HmacSha2_256, cipher, inputs, &unhex(G_IR)).unwrap());
    // With this suite each of the seven keys has 32 octets.
    let all = [&keys.sk_d, &keys.sk_ai, &keys.sk_ar, &keys.sk_ei, &keys.sk_er, &keys.sk_pi, &keys.sk_pr];
    for (key, expected) in all.into_iter().zip(unhex(DKM).chunks(32)) {
        assert_eq!(key.as_slice(), expected);
    }
}

#[test]
fn an_aead_suite_has_no_integrity_keys_and_a_salt_in_the_encryption_keys() {
    let keys = with_inputs(|inputs| {
        IkeKeys::initial(Prf::HmacSha2_256, IkeCipher::Aes256Gcm16, inputs, &unhex(G_IR)).unwrap()
    });
    let dkm = unhex(DKM);
    assert_eq!(*keys.sk_d, dkm[..32]);
    assert!(keys.sk_ai.is_empty() && keys.sk_ar.is_empty());
    assert_eq!(*keys.sk_ei, dkm[32..68]);
    assert_eq!(*keys.sk_er, dkm[68..104]);
    assert_eq!(*keys.sk_pi, dkm[104..136]);
    assert_eq!(*keys.sk_pr, dkm[136..168]);
}

#[test]
fn keymat_agrees_with_nist_without_a_new_key_exchange() {
    let sk_d = &unhex(DKM)[..32];
    let expected = unhex(DKM_CHILD);
    let stream = keymat(Prf::HmacSha2_256, sk_d, None, &unhex(NI), &unhex(NR), expected.len()).unwrap();
    assert_eq!(*stream, expected);
}

#[test]
fn keymat_agrees_with_nist_with_a_new_key_exchange() {
    let sk_d = &unhex(DKM)[..32];
    let expected = unhex(DKM_CHILD_DH);
    let (ni, nr, shared) = (unhex(NI), unhex(NR), unhex(G_IR_NEW));
    let stream = keymat(Prf::HmacSha2_256, sk_d, Some(&shared), &ni, &nr, expected.len()).unwrap();
    assert_eq!(*stream, expected);
}

#[test]
fn child_keys_are_initiators_first_and_encryption_before_integrity() {
    let sk_d = &unhex(DKM)[..32];
    let stream = unhex(DKM_CHILD);
    let keys = ChildKeys::derive(Prf::HmacSha2_256, sk_d, None, &unhex(NI), &unhex(NR), 16, 20).unwrap();
    assert_eq!(*keys.encr_i, stream[..16]);
    assert_eq!(*keys.integ_i, stream[16..36]);
    assert_eq!(*keys.encr_r, stream[36..52]);
    assert_eq!(*keys.integ_r, stream[52..72]);
}

#[test]
fn a_rekeyed_ike_sa_uses_the_old_sk_d_for_its_skeyseed() {
    let sk_d = &unhex(DKM)[..32];
    let cipher = IkeCipher::Aes128Gcm16;
    with_inputs(|inputs| {
        let keys =
            IkeKeys::rekeyed(Prf::HmacSha2_256, sk_d, Prf::HmacSha2_384, cipher, inputs, &unhex(G_IR_NEW))
                .unwrap();
        // NIST gives the SKEYSEED; after it the new IKE_SA's own function is used.
        let seed = [inputs.nonce_i, inputs.nonce_r, &SPI_I, &SPI_R].concat();
        let stream = Prf::HmacSha2_384.prf_plus(&unhex(SKEYSEED_REKEY), &seed, 48).unwrap();
        assert_eq!(keys.sk_d, stream);
    });
}

#[test]
fn debug_shows_no_key() {
    let keys = with_inputs(|inputs| {
        IkeKeys::initial(Prf::HmacSha2_256, IkeCipher::Aes128Gcm16, inputs, &unhex(G_IR)).unwrap()
    });
    assert_eq!(format!("{keys:?}"), "IkeKeys { .. }");
    let child = ChildKeys::derive(Prf::HmacSha2_256, b"k", None, b"i", b"r", 16, 32).unwrap();
    assert_eq!(format!("{child:?}"), "ChildKeys { .. }");
}
