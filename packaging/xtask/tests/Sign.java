// Signs with keys of a token through SunPKCS11, and has Java's own software verify.
// java Sign.java CONFIG PIN ALIAS...

import java.security.*;
import java.security.spec.*;
import java.util.Arrays;

public class Sign {
    public static void main(String[] words) throws Exception {
        Provider token = Security.getProvider("SunPKCS11").configure(words[0]);
        char[] pin = words[1].toCharArray();
        KeyStore store = KeyStore.getInstance("PKCS11", token);
        store.load(null, pin);
        for (String alias : Arrays.copyOfRange(words, 2, words.length)) {
            PrivateKey key = (PrivateKey) store.getKey(alias, pin);
            check(alias, token, key, store.getCertificate(alias).getPublicKey());
        }
        KeyPairGenerator rsa = KeyPairGenerator.getInstance("RSA", token);
        rsa.initialize(2048);
        KeyPair pair = rsa.generateKeyPair();
        check("RSA", token, pair.getPrivate(), pair.getPublic());
        KeyPairGenerator ec = KeyPairGenerator.getInstance("EC", token);
        ec.initialize(new ECGenParameterSpec("secp256r1"));
        pair = ec.generateKeyPair();
        check("EC", token, pair.getPrivate(), pair.getPublic());
    }

    static void check(String name, Provider token, PrivateKey key, PublicKey held) throws Exception {
        boolean rsa = key.getAlgorithm().equals("RSA");
        String algorithm = rsa ? "SHA256withRSA" : "SHA256withECDSA";
        byte[] message = ("signed by " + name).getBytes();
        Signature signer = Signature.getInstance(algorithm, token);
        signer.initSign(key);
        signer.update(message);
        byte[] signature = signer.sign();

        Signature inside = Signature.getInstance(algorithm, token);
        inside.initVerify(held);
        inside.update(message);
        // The same public key, in software.
        PublicKey free = KeyFactory.getInstance(key.getAlgorithm(), rsa ? "SunRsaSign" : "SunEC")
            .generatePublic(new X509EncodedKeySpec(held.getEncoded()));
        Signature outside = Signature.getInstance(algorithm, rsa ? "SunRsaSign" : "SunEC");
        outside.initVerify(free);
        outside.update(message);
        boolean good = inside.verify(signature) && outside.verify(signature);
        message[0] ^= 1;
        outside.update(message);
        boolean forged = outside.verify(signature);
        System.out.println(name + (good && !forged ? " good" : " bad"));
    }
}
