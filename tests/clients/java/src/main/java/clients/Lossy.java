package clients;

import java.io.DataInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.Random;
import java.util.concurrent.atomic.AtomicLong;

/** A SOCKS5 proxy that loses some of the frames that come back from brokers. */
final class Lossy {
    final AtomicLong lost = new AtomicLong();
    private final ServerSocket listener;
    private final Random random;
    private final double share;
    private final int namesrvPort;

    Lossy(Options options, double share) throws IOException {
        String namesrv = options.namesrv();
        this.namesrvPort = Integer.parseInt(namesrv.substring(namesrv.lastIndexOf(':') + 1));
        this.share = share;
        this.random = new Random(options.seed());
        this.listener = new ServerSocket(0, 64, InetAddress.getLoopbackAddress());
        start(() -> {
            while (true) {
                Socket client = listener.accept();
                start(() -> serve(client));
            }
        });
    }

    /** As 5.x clients want it: by network, here every one. */
    String config() {
        return "{\"0.0.0.0/0\":{\"addr\":\"127.0.0.1:" + listener.getLocalPort() + "\"}}";
    }

    private interface Work {
        void run() throws IOException;
    }

    private static void start(Work work) {
        Thread thread = new Thread(() -> {
            try {
                work.run();
            } catch (IOException ended) {
                // One side of a connection is gone.
            }
        });
        thread.setDaemon(true);
        thread.start();
    }

    private void serve(Socket client) throws IOException {
        DataInputStream in = new DataInputStream(client.getInputStream());
        OutputStream out = client.getOutputStream();
        Main.same((byte) 5, in.readByte(), "version of SOCKS");
        in.readFully(new byte[in.readUnsignedByte()]);
        out.write(new byte[] {5, 0});
        in.readFully(new byte[3]);
        byte[] address = new byte[in.readByte() == 1 ? 4 : in.readUnsignedByte()];
        in.readFully(address);
        int port = in.readUnsignedShort();
        InetAddress host = address.length == 4 ? InetAddress.getByAddress(address)
            : InetAddress.getByName(new String(address));
        Socket server = new Socket(host, port);
        server.setTcpNoDelay(true);
        client.setTcpNoDelay(true);
        out.write(new byte[] {5, 0, 0, 1, 0, 0, 0, 0, 0, 0});
        start(() -> pass(client, server));
        boolean whole = port == namesrvPort;
        start(() -> back(server, client, whole));
    }

    private static void pass(Socket from, Socket to) throws IOException {
        try (from; to) {
            InputStream in = from.getInputStream();
            in.transferTo(to.getOutputStream());
        }
    }

    private void back(Socket server, Socket client, boolean whole) throws IOException {
        try (server; client) {
            DataInputStream in = new DataInputStream(server.getInputStream());
            OutputStream out = client.getOutputStream();
            while (true) {
                byte[] frame = new byte[4 + in.readInt()];
                in.readFully(frame, 4, frame.length - 4);
                frame[0] = (byte) (frame.length - 4 >>> 24);
                frame[1] = (byte) (frame.length - 4 >>> 16);
                frame[2] = (byte) (frame.length - 4 >>> 8);
                frame[3] = (byte) (frame.length - 4);
                if (whole || keeps()) {
                    out.write(frame);
                } else {
                    lost.incrementAndGet();
                }
            }
        }
    }

    private synchronized boolean keeps() {
        return random.nextDouble() >= share;
    }
}
