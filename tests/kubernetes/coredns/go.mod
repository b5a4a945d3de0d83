module stack/coredns

go 1.25

require github.com/coredns/coredns v1.14.7
