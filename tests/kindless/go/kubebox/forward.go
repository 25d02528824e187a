package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
)

func init() { components["forward"] = forwardMain }

// forwardMain copies TCP connections: forward LISTEN=TARGET...
//
// It lives exactly as long as its standard input: the other end of that pipe is held by the cluster's first process,
// so no forwarder outlives its cluster, however the cluster ended.
func forwardMain() {
	for _, pair := range os.Args[1:] {
		listen, target, found := strings.Cut(pair, "=")
		if !found {
			fmt.Fprintln(os.Stderr, "forward: want LISTEN=TARGET, got", pair)
			os.Exit(2)
		}
		listener, err := net.Listen("tcp", listen)
		if err != nil {
			fmt.Fprintln(os.Stderr, "forward:", err)
			os.Exit(1)
		}
		go accept(listener, target)
	}
	fmt.Println("listening")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func accept(listener net.Listener, target string) {
	for {
		client, err := listener.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "forward:", err)
			os.Exit(1)
		}
		go func() {
			defer client.Close()
			server, err := net.Dial("tcp", target)
			if err != nil {
				return
			}
			defer server.Close()
			done := make(chan struct{})
			go func() {
				halfCopy(server, client)
				close(done)
			}()
			halfCopy(client, server)
			<-done
		}()
	}
}

// halfCopy passes on the end of the stream without closing the other direction, as HTTP/1.0 style clients need.
func halfCopy(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	if tcp, ok := to.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
}
