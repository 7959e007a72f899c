import strowger
for peer in strowger.listen("/echo/1"):
    for message in peer:
        peer.send(message)
