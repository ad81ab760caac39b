"""Words for the reading task.  Held-out words are never drawn in training."""

TRAIN_WORDS = """
able about above act add after again air all along also always and angle animal any apple arm army art
ask away baby back bad bag ball bank base bath bear beat bed bee begin bell belt bend best big bike bird bit
black blow blue board boat body bone book born both bottle bowl box boy brain bread break brick bring brown
brush build burn bus busy butter button buy cake call camera camp can car card care carry cart case cat
cause chain chair chalk chance change cheap cheese chest chin church circle city class clean clear clock close
cloth cloud coal coat coffee cold collar colour comb come common cook cool copper copy cord cork cotton
count country cover cow crack cream crime cross cruel crush cry cup curve cut damp danger dark data day dead
dear death debt deep desk dirty dog door doubt down drain drawer dress drink drive drop dry dust ear early
earth east edge egg eight end engine enough equal error even event every exit eye face fact fall false family far
farm fat father fear feet field fight find fire first fish five fix flag flame flat flight floor flower fly fold
food foot force fork form forty four fowl frame free friend from front fruit full gate get girl give glass glove
goat gold good grain grass great grey grip group guide gun hair half hand hang happy hard hat hate have
head heart heat help high hill home hook hope horn horse hour house how ice idea ill inch ink iron island
jelly jewel job join judge jump keep key kick kind king kiss knee knife knot lady land late laugh law lead leaf
left leg let letter level lift light like line lion lip list little lock long look loose lost loud love low mail make
male man map mark market mass match meal meat metal middle milk mind mine mix model money month moon
more most motion mouth move much muscle music nail name narrow near neck need nerve net new night nine
noise north nose not note now number nut oil old one only open or order other out oven over owl page pain
paint paper part past path pay pen pencil pig pin pipe place plane plant plate play please plow point poor
post pot power print prison push put quick quiet rail rain range rat ray read ready red rest rice right
ring river road rod roll roof room root rough round rule run sad safe sail salt same sand say scale school screw
sea seat second seed self send sense serve seven sex shade shake shame sharp sheep shelf ship shirt shock shoe
shop short shut side sign silk simple sister six size skin skirt sky sleep slip slope slow small smash smell
smile smoke smooth snake snow so soap sock soft solid some son song sort sound soup south space spade sponge
spoon square stage stamp start state steam steel stem step stick still stitch stop store storm story street strong
sudden sugar sun swim table tail take talk tall taste tax tea teach ten tent test then there thick thin thing this
throat thumb ticket tight till time tin tired toe top touch town trade train tray tree trick true turn twist two
unit up use value vase verse very vessel view voice wait walk wall war warm wash watch wave wax way weather week
weight west wet wheel when whip white who wide wild will win window wine wing winter wire wise woman wood wool
word work world worm wound write wrong yard year yes yellow you young zero zone
""".split()

HELD_WORDS = """
actor amber angel ankle apron arrow bacon badge beach berry blank blend bloom brave bridge bubble cabin cactus candle
canoe cargo castle cherry chess cider cliff clown coral couch crab crown dance deer donkey dragon drum eagle echo elbow
fairy fence ferry flute fog forest fox frog galaxy garden ghost globe grape guitar hammer hero honey hotel jacket
jungle kite koala ladder lamp lemon lizard magic maple mango melon mirror monkey mouse mug nest ninja novel ocean olive
onion orbit otter oyster panda parrot peach pepper piano pilot pirate pizza planet pond puzzle queen quilt rabbit radio
robot rocket rope saddle salad shark shell silver spider squid sunny swan tiger toast tomato tower truck tulip turtle
van violin volcano wagon walnut whale wizard wolf yacht yoga zebra
""".split()

assert not set(TRAIN_WORDS) & set(HELD_WORDS)
assert all(2 <= len(w) <= 7 for w in TRAIN_WORDS + HELD_WORDS)
