# frozen_string_literal: true

require "openssl"

module Stores
  # A certificate authority, and a certificate that it signed for a server on 127.0.0.1.
  class Certificates
    attr_reader :ca_file

    # @param folder [String] where the files are written
    # @param kind [Symbol] `:signed` by an authority; `:self_signed`, as `openssl req -x509` makes it; `:nameless`,
    #   which is self-signed and names no host; `:expired`, which is self-signed
    def initialize(folder, kind = :signed)
      @ca_file = "#{folder}/ca.pem"
      @certificate_file = "#{folder}/server.pem"
      @key_file = "#{folder}/server.key"

      kind == :signed ? write_signed : write_self_signed(kind)
    end

    # @return [Hash{Symbol => String}] see {RedisServer}
    def settings
      { tls_cert_file: @certificate_file, tls_key_file: @key_file, tls_ca_cert_file: @ca_file, tls_auth_clients: "no" }
    end

    private

    def write_signed
      ca_key, key = Array.new(2) { OpenSSL::PKey::EC.generate("prime256v1") }
      ca = sign("our own authority", ca_key, ca_key, nil, { "basicConstraints" => "critical,CA:TRUE",
                                                            "keyUsage" => "critical,keyCertSign,cRLSign" })
      server = sign("our own server", key, ca_key, ca, { "subjectAltName" => "IP:127.0.0.1,DNS:localhost",
                                                         "extendedKeyUsage" => "serverAuth" })
      File.write(@ca_file, ca.to_pem)
      File.write(@certificate_file, server.to_pem)
      File.write(@key_file, key.to_pem)
    end

    def write_self_signed(kind)
      key = OpenSSL::PKey::EC.generate("prime256v1")
      names = kind == :nameless ? {} : { "subjectAltName" => "IP:127.0.0.1,DNS:localhost" }
      age = kind == :expired ? 200_000 : 60
      certificate = sign("our own server", key, key, nil, { "basicConstraints" => "critical,CA:TRUE", **names }, age:)
      [@ca_file, @certificate_file].each { |file| File.write(file, certificate.to_pem) }
      File.write(@key_file, key.to_pem)
    end

    def sign(name, key, ca_key, issuer, extensions, age: 60)
      OpenSSL::X509::Certificate.new.tap do |certificate|
        certificate.version = 2 # which is X.509 v3
        certificate.serial = rand(1..(2**64))
        certificate.subject = OpenSSL::X509::Name.new([["CN", name]])
        certificate.issuer = (issuer || certificate).subject
        certificate.public_key = key
        certificate.not_before = Time.now - age
        certificate.not_after = certificate.not_before + 86_400
        extend_with(certificate, issuer || certificate, extensions)
        certificate.sign(ca_key, "SHA256")
      end
    end

    def extend_with(certificate, issuer, extensions)
      factory = OpenSSL::X509::ExtensionFactory.new(issuer, certificate)
      { "subjectKeyIdentifier" => "hash", **extensions }.each do |name, value|
        certificate.add_extension(factory.create_extension(name, value.delete_prefix("critical,"),
                                                           value.start_with?("critical,")))
      end
    end
  end
end
