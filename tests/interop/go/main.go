// Dial a kodo peer with go-libp2p, unmodified, and use it as any peer may.
//
//	dial MULTIADDR VERSION PROTOCOL STREAMS BYTES
//
// VERSION is that of the WebRTC Direct handshake, 1 or 2. PROTOCOL echoes. Prints one JSON object a step: `dial`,
// `identify`, `ping`, `streams` (STREAMS at once, each with bytes of its own), `transfer` (BYTES each way on one).
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	libp2pwebrtc "github.com/libp2p/go-libp2p/p2p/transport/webrtc"
)

const (
	pieceBytes  = 16 << 10
	streamBytes = 16 << 10
	patience    = 5 * time.Minute
)

func say(step string, began time.Time, facts map[string]any) {
	facts["step"], facts["ms"] = step, time.Since(began).Milliseconds()
	line, _ := json.Marshal(facts)
	fmt.Println(string(line))
}

// echoed sends random bytes, ends its side, and returns how many came back, or an error when they are others.
func echoed(ctx context.Context, h host.Host, id peer.ID, name protocol.ID, count int) (int64, error) {
	stream, err := h.NewStream(ctx, id, name)
	if err != nil {
		return 0, err
	}
	defer stream.Close()
	sent, back := sha256.New(), sha256.New()
	failed := make(chan error, 1)
	go func() {
		piece := make([]byte, pieceBytes)
		for left := count; left > 0; left -= len(piece) {
			piece = piece[:min(left, len(piece))]
			rand.Read(piece)
			sent.Write(piece)
			if _, err := stream.Write(piece); err != nil {
				failed <- err
				return
			}
		}
		failed <- stream.CloseWrite()
	}()
	came, err := io.Copy(back, stream)
	if err := errors.Join(err, <-failed); err != nil {
		return came, err
	}
	if came != int64(count) || !bytes.Equal(sent.Sum(nil), back.Sum(nil)) {
		return came, fmt.Errorf("%d bytes were sent, and %d others came back", count, came)
	}
	return came, nil
}

func run(address string, version int, name protocol.ID, streams, size int) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	target, err := peer.AddrInfoFromString(address)
	if err != nil {
		return err
	}
	h, err := libp2p.New(
		libp2p.Transport(libp2pwebrtc.New, libp2pwebrtc.WithDialerVersion(version)),
		libp2p.NoListenAddrs,
		libp2p.DisableRelay(),
	)
	if err != nil {
		return err
	}
	defer h.Close()

	began := time.Now()
	if err := h.Connect(ctx, *target); err != nil {
		return err
	}
	reached := h.Network().ConnsToPeer(target.ID)[0].RemotePeer()
	say("dial", began, map[string]any{"peer_id": reached.String()})

	began = time.Now()
	agent, err := h.Peerstore().Get(target.ID, "AgentVersion") // Connect has waited for identify
	if err != nil {
		return err
	}
	known, err := h.Peerstore().GetProtocols(target.ID)
	if err != nil {
		return err
	}
	say("identify", began, map[string]any{"agent": agent, "protocols": known})

	began = time.Now()
	pinging, done := context.WithCancel(ctx)
	answer := <-ping.NewPingService(h).Ping(pinging, target.ID)
	done() // else it goes on, on a stream that counts
	if answer.Error != nil {
		return answer.Error
	}
	say("ping", began, map[string]any{"rtt_us": answer.RTT.Microseconds()})

	began = time.Now()
	var group sync.WaitGroup
	problems := make([]error, streams)
	for index := range streams {
		group.Go(func() { _, problems[index] = echoed(ctx, h, target.ID, name, streamBytes) })
	}
	group.Wait()
	if err := errors.Join(problems...); err != nil {
		return err
	}
	say("streams", began, map[string]any{"streams": streams, "bytes": streams * streamBytes})

	began = time.Now()
	came, err := echoed(network.WithNoDial(ctx, "connected"), h, target.ID, name, size)
	if err != nil {
		return err
	}
	say("transfer", began, map[string]any{"bytes": came})
	return nil
}

func main() {
	if len(os.Args) != 6 {
		fmt.Fprintln(os.Stderr, "usage: dial MULTIADDR VERSION PROTOCOL STREAMS BYTES")
		os.Exit(2)
	}
	version, _ := strconv.Atoi(os.Args[2])
	streams, _ := strconv.Atoi(os.Args[4])
	size, _ := strconv.Atoi(os.Args[5])
	if err := run(os.Args[1], version, protocol.ID(os.Args[3]), streams, size); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
