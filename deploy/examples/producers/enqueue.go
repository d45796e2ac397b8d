// Puts one job on Genfleet's queue and waits for the event it ends in.
//
//	enqueue KIND PAYLOAD
//
// The job is published persistent, mandatory and with a publisher confirm, so that it is on the queue once the broker
// has answered. The event comes to a queue of this connection's own (ReplyTo), told apart by its correlation id.
//
// Exit code: 0 it succeeded, 2 it failed or expired, 1 no event came, or the job is not on the queue; 64 bad usage.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func variable(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// seconds is how long an event is waited for.
func seconds() string { return variable("GENFLEET_TIMEOUT_SECONDS", "60") }

// newID makes a random UUID.
func newID() string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// errClosed stands in for the reason that the channel's end tells.
var errClosed = errors.New("the channel is closed")

// enqueue publishes the job and waits until the broker has it on a queue.
func enqueue(ctx context.Context, channel *amqp.Channel, exchange, kind, id, replyTo string, payload json.RawMessage) error {
	body, err := json.Marshal(map[string]any{"id": id, "kind": kind, "payload": payload})
	if err != nil {
		return err
	}
	now := time.Now()
	returned := channel.NotifyReturn(make(chan amqp.Return, 1))
	confirmed := channel.NotifyPublish(make(chan amqp.Confirmation, 1))
	err = channel.PublishWithContext(ctx, exchange, kind, true, false, amqp.Publishing{
		ContentType:   "application/json",
		DeliveryMode:  amqp.Persistent,
		MessageId:     id,
		CorrelationId: id,
		ReplyTo:       replyTo,
		Timestamp:     now,
		Headers:       amqp.Table{"genfleet-enqueued-ms": now.UnixMilli()}, // waits are measured from here
		Body:          body,
	})
	if err != nil {
		return err
	}
	confirmation, open := amqp.Confirmation{}, false
	select {
	case confirmation, open = <-confirmed:
	case <-ctx.Done():
		return fmt.Errorf("not confirmed in time: job %s may or may not be enqueued", id)
	}
	if !open {
		return errClosed
	}
	select {
	case _, came := <-returned: // comes before the confirm
		if came {
			return fmt.Errorf("the job came back: no queue takes %s jobs from exchange %s", kind, exchange)
		}
	default:
	}
	if !confirmation.Ack {
		return errors.New("the broker refused the job: its queue may be full. Nothing was enqueued")
	}
	return nil
}

// run enqueues one job and returns its event.
func run(ctx context.Context, url, exchange, kind string, payload json.RawMessage) ([]byte, error) {
	connection, err := amqp.Dial(url)
	if err != nil {
		return nil, fmt.Errorf("no connection to the broker: %w", err)
	}
	defer connection.Close()
	channel, err := connection.Channel()
	if err != nil {
		return nil, err
	}
	if err := channel.Confirm(false); err != nil {
		return nil, err
	}
	lost := channel.NotifyClose(make(chan *amqp.Error, 1))
	queue, err := channel.QueueDeclare("", false, false, true, false, nil) // exclusive
	if err != nil {
		return nil, err
	}
	replies, err := channel.Consume(queue.Name, "", true, true, false, false, nil)
	if err != nil {
		return nil, err
	}
	id := newID()
	enqueued := make(chan error, 1)
	go func() { enqueued <- enqueue(ctx, channel, exchange, kind, id, queue.Name, payload) }()
	for {
		select {
		case err := <-enqueued:
			if err != nil && !errors.Is(err, errClosed) {
				return nil, err
			}
		case reply, open := <-replies:
			if !open {
				replies = nil // lost says why
			} else if reply.CorrelationId == id {
				return reply.Body, nil
			}
		case reason := <-lost:
			return nil, fmt.Errorf("the broker closed the channel: %v. Have the workers declared their exchanges?", reason)
		case <-ctx.Done():
			return nil, fmt.Errorf("no event within %s s: job %s may be enqueued, and may still be worked", seconds(), id)
		}
	}
}

func main() {
	url := os.Getenv("GENFLEET_QUEUE_URL")
	if len(os.Args) != 3 || !json.Valid([]byte(os.Args[2])) || url == "" {
		fmt.Fprintln(os.Stderr, `usage: GENFLEET_QUEUE_URL=amqp://user:password@host:5672/ enqueue KIND PAYLOAD, e.g. cdn.purge '{"paths": ["/a.js"]}'`)
		os.Exit(64)
	}
	timeout, err := time.ParseDuration(seconds() + "s")
	if err != nil {
		fmt.Fprintln(os.Stderr, "error: GENFLEET_TIMEOUT_SECONDS is no number")
		os.Exit(64)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	exchange := variable("GENFLEET_QUEUE_PREFIX", "genfleet") + ".jobs"
	event, err := run(ctx, url, exchange, os.Args[1], json.RawMessage(os.Args[2]))
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	fmt.Println(string(event))
	var told struct {
		Data struct {
			Outcome string `json:"outcome"`
		} `json:"data"`
	}
	if err := json.Unmarshal(event, &told); err != nil || told.Data.Outcome != "succeeded" {
		os.Exit(2)
	}
}
