"""The attacks: on archives, decoding, stored bytes, publication and the whole job."""
